# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Keep a node a member of RabbitMQ's cluster, and lose no database that others may need.

Documented in library/rabbitmq_cluster.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.dry_run import not_looked_at
from ansible.module_utils.kilonova.system.logs import unit_log
from ansible.module_utils.kilonova.system.waiting import look_until

ARGUMENT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["looked", "prepared", "absent", "member"], "default": "member"},
    "node": {"type": "str", "required": True},
    "members": {"type": "list", "elements": "str", "required": True},
    "looks": {"type": "dict", "default": {}},
    "expected": {"type": "list", "elements": "str", "default": []},
    "replaced": {"type": "str", "default": ""},
    "directory": {"type": "path", "default": "/var/lib/rabbitmq/mnesia"},
    "timeout": {"type": "int", "default": 300},
}
UNIT = "rabbitmq-server.service"
UNITS = ("epmd.socket", UNIT)
POLL_SECONDS = 1.0
ASK_SECONDS = 30
# What belongs to the database of a node beside its directory.
BESIDE = ("", "-feature_flags", "-plugins-expand", ".pid")
SET_ASIDE = ".set-aside"
# In one call: each start of rabbitmqctl takes a second or two.
EXPRESSION = """
F = fun(G, D) -> try G() catch _:_ -> D end end,
io:format("~ts~n", [rabbit_json:encode(#{
    serving => rabbit:is_running(),
    members => F(fun() -> rabbit_nodes:list_members() end, []),
    running => F(fun() -> rabbit_nodes:list_running() end, []),
    partitions => F(fun() -> rabbit_node_monitor:partitions() end, []),
    critical => F(fun() -> length(rabbit_quorum_queue:list_with_minimum_quorum()) end, 0)})]).
"""


@dataclass
class Look:
    """What a host knows of the cluster. Without an answer, only whether it has a database."""

    database: bool = False
    serving: bool = False
    members: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    partitions: list[str] = field(default_factory=list)
    # Quorum queues that cannot do without this node.
    critical: int = 0
    error: str = ""


@dataclass(frozen=True)
class Plan:
    """What to do with the database of a node before it starts."""

    anew: bool = False
    # Where the node begins without a database while others have one: the members that can take it in.
    through: tuple[str, ...] = ()
    problem: str = ""


def quorum_without(look: Look, node: str) -> bool:
    """Return whether the running members that a host sees are a majority without this node."""
    running = set(look.running) - {node}
    return look.serving and len(running & set(look.members)) * 2 > len(look.members)


def plan(node: str, members: Sequence[str], looks: Mapping[str, Look | None]) -> Plan:
    """Return what to do with the database of a node. looks: by node, None where the host was not reached."""
    mine = looks[node] or Look()
    others = {name: look for name, look in looks.items() if name != node and name in members}
    clusters = {name: look for name, look in others.items() if look is not None and quorum_without(look, node)}
    if clusters:
        found = max(clusters.values(), key=lambda look: len(look.members))
        # Of two that formed apart, the smaller one yields, or the one without the first member of the inventory.
        larger = len(found.members) > len(mine.members) or members[0] in found.members
        anew = mine.database and node not in found.members and larger
        return Plan(anew, () if mine.database and not anew else tuple(clusters))
    holders = tuple(name for name, look in others.items() if look is not None and look.database)
    unknown = [name for name, look in others.items() if look is None]
    if mine.database:
        return Plan()
    if unknown and not holders:
        return Plan(
            problem=f"RabbitMQ has no database here, and {', '.join(sorted(unknown))} cannot be asked, which may have "
            "one. Start these hosts, or take them out of the inventory for good"
        )
    return Plan(through=holders)


def whole(members: Sequence[str], looks: Mapping[str, Look | None]) -> bool:
    """Return whether each member sees all members run."""
    return all(look is not None and look.serving and set(members) <= set(look.running) for look in looks.values())


def ask(module: AnsibleModule) -> tuple[dict[str, Any], str]:
    """Return what the node of this host says of the cluster, or why it does not."""
    states = subprocess.run(("systemctl", "is-active", *UNITS), capture_output=True, text=True, check=False).stdout
    # Without epmd.socket, rabbitmqctl would start an epmd of its own, which holds the port on every address. A node
    # that waits for others is activating, and answers.
    if not all(state in ("active", "activating") for state in states.split() or ["inactive"]):
        return {}, f"{' and '.join(UNITS)} do not both run"
    command = ["rabbitmqctl", "--silent", f"--timeout={ASK_SECONDS}", "eval", EXPRESSION]
    code, output, error = module.run_command(command)
    lines = [line.strip() for line in (output if code == 0 else error or output).splitlines() if line.strip()]
    if code == 0 and lines and lines[0].startswith("{"):
        return dict(json.loads(lines[0])), ""
    return {}, lines[0] if lines else f"rabbitmqctl ended with {code}"


def has_database(directory: str, node: str) -> bool:
    """Return whether a node has been started on this host and has tables."""
    return any((Path(directory) / node / name).exists() for name in ("schema.DAT", "khepri", "coordination"))


def look_here(module: AnsibleModule) -> Look:
    """Look at the database and the node of this host."""
    look = Look(database=has_database(module.params["directory"], module.params["node"]))
    if look.database and shutil.which("rabbitmqctl"):
        found, look.error = ask(module)
        look = Look(**(asdict(look) | found))
    return look


def paths_of(directory: str, node: str, suffix: str = "") -> list[Path]:
    """Return what exists of a node's database on this host."""
    found = [Path(directory) / f"{node}{end}{suffix}" for end in BESIDE]
    return [path for path in found if path.exists()]


def set_aside(module: AnsibleModule) -> None:
    """Stop the node and move its database away, for RabbitMQ to begin a new one."""
    code, _output, error = module.run_command(["systemctl", "stop", UNIT])
    if code != 0:
        module.fail_json(msg=f"{UNIT} cannot be stopped: {error.strip()}\n{unit_log(UNIT)}")
    directory, node = module.params["directory"], module.params["node"]
    for path in paths_of(directory, node):
        target = path.with_name(path.name + SET_ASIDE)
        if target.is_dir():
            shutil.rmtree(target)
        path.replace(target)


def leftovers(module: AnsibleModule) -> list[Path]:
    """Return databases that were set aside, and those of the node that this one replaced."""
    directory, node, replaced = (module.params[name] for name in ("directory", "node", "replaced"))
    old = [*paths_of(directory, replaced), *paths_of(directory, replaced, SET_ASIDE)] if replaced else []
    return [*old, *paths_of(directory, node, SET_ASIDE)]


def prepare(module: AnsibleModule) -> None:
    """Set the database aside where the others are a cluster without this node; fail where nothing can be proved."""
    node, members = module.params["node"], module.params["members"]
    looks = {name: Look(**look) if look else None for name, look in module.params["looks"].items()}
    looks = {name: looks.get(name) for name in dict.fromkeys([*members, node])}
    found = plan(node, members, looks)
    if found.problem:
        module.fail_json(msg=found.problem)
    if found.anew and not module.check_mode:
        set_aside(module)
    module.exit_json(
        changed=found.anew,
        changes=[f"RabbitMQ: database of {node} set aside: the cluster goes on without it"] if found.anew else [],
        through=list(found.through),
        whole=whole(members, looks),
        reached=[name for name, look in looks.items() if look is not None],
    )


def remove(module: AnsibleModule) -> None:
    """Forget the node, once the members that run are a majority without it."""
    node, deadline = module.params["node"], time.monotonic() + module.params["timeout"]

    def look_now() -> Look:
        found, error = ask(module)
        return Look(**found, error=error)

    def gone(look: Look) -> bool:
        # One that has just died runs, as far as the others know.
        return quorum_without(look, node) and node not in look.running

    look = look_until(module, look_now, gone, deadline, POLL_SECONDS)
    if not quorum_without(look, node):
        if module.check_mode:
            not_looked_at(module, "RabbitMQ's cluster", look.error or "it has no majority yet", changes=[])
        module.fail_json(
            msg=f"{node} cannot be taken out of RabbitMQ's cluster: of its members {look.members or '(unknown)'}, only "
            f"{sorted(set(look.running) - {node})} run without it, which is no majority. {look.error}".rstrip()
        )
    stale = node in look.members
    if stale and node in look.running:
        module.fail_json(msg=f"{node} runs in RabbitMQ's cluster; stop it before it is taken out")
    if stale and not module.check_mode:
        code, output, failure = module.run_command(["rabbitmqctl", "--silent", "forget_cluster_node", node])
        if code != 0:
            module.fail_json(
                msg=f"'rabbitmqctl forget_cluster_node {node}' failed: {failure.strip() or output.strip()}"
            )
    module.exit_json(changed=stale, changes=[f"RabbitMQ: {node} taken out of the cluster"] if stale else [])


def keep(module: AnsibleModule) -> None:
    """Wait until the node serves with the members that are expected, then remove what was set aside."""
    params = module.params
    node, members = params["node"], params["members"]
    wanted = {node, *params["expected"]}
    deadline = time.monotonic() + params["timeout"]

    def ready(look: Look) -> bool:
        return look.serving and wanted <= set(look.running)

    look = look_until(module, partial(look_here, module), ready, deadline, POLL_SECONDS)
    extra = [f"RabbitMQ: member {name}" for name in look.members if name not in members]
    facts = asdict(look) | {"missing": [name for name in members if name not in look.running], "foreign": extra}
    if not look.serving and module.check_mode:
        # The unit is known not to run, or waits for others.
        not_looked_at(module, "RabbitMQ's cluster", look.error or f"{node} does not serve yet", changes=[], **facts)
    if not ready(look) and not module.check_mode:
        why = (
            f"{sorted(wanted - set(look.running))} do not run" if look.serving else look.error or "it waits for others"
        )
        module.fail_json(
            msg=f"RabbitMQ's {node} is not in a whole cluster after {params['timeout']} s: {why}\n{unit_log(UNIT)}",
            **facts,
        )
    # The old databases may be the last ones until every member has what the cluster has.
    old = leftovers(module) if set(members) <= set(look.running) else []
    # Two that formed apart: prepare() decides which one yields.
    alone = len(members) > 1 and look.members == [node]
    for path in [] if module.check_mode else old:
        shutil.rmtree(path) if path.is_dir() else os.unlink(path)
    changes = [f"RabbitMQ: {path} removed" for path in old]
    changes += [f"RabbitMQ: {node} is alone in its cluster"] if alone and module.check_mode else []
    module.exit_json(changed=bool(changes), changes=changes, **facts)


def run(module: AnsibleModule) -> None:
    """Do what the state says."""
    if module.params["state"] == "looked":
        module.exit_json(changed=False, node=module.params["node"], look=asdict(look_here(module)))
    {"prepared": prepare, "absent": remove, "member": keep}[module.params["state"]](module)
