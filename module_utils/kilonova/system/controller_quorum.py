# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ask every engine of the controllers whether it can do without one of them.

Documented in library/controller_quorum.py.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Collection, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.database.galera import PROGRAM
from ansible.module_utils.kilonova.network import ovn_cluster
from ansible.module_utils.kilonova.system import haproxy_server, rabbitmq_cluster
from ansible.module_utils.kilonova.system.waiting import look_until

ARGUMENT_SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "members": {"type": "list", "elements": "str", "required": True},
    "nodes": {"type": "list", "elements": "str", "required": True},
    "northbound": {"type": "list", "elements": "str", "required": True},
    "southbound": {"type": "list", "elements": "str", "required": True},
    "proxies": {"type": "list", "elements": "str", "default": []},
    "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
    "timeout": {"type": "int", "default": 60},
}
POLL_SECONDS = 1.0
ASK_SECONDS = 30
SYNCED = 4


def database_refuses(states: Mapping[str, Mapping[str, Any] | None], away: Collection[str]) -> str:
    """Return why MariaDB cannot do without some members; empty where it can."""
    known = {name: state for name, state in states.items() if state and state.get("primary")}
    left = [name for name, state in known.items() if name not in away and state.get("local") == SYNCED]
    size = max((int(state.get("size", 0)) for state in known.values()), default=0)
    if left and len(left) * 2 > size:
        return ""
    return f"MariaDB: of {size} members in the cluster, {named(left)} in step with it"


def queue_refuses(look: rabbitmq_cluster.Look, away: Collection[str]) -> str:
    """Return why RabbitMQ cannot do without some nodes; empty where it can."""
    left = sorted(set(look.running) & set(look.members) - set(away))
    if not look.serving:
        return f"RabbitMQ: the node of this host does not serve. {look.error}".rstrip()
    if look.partitions:
        return f"RabbitMQ: its nodes are cut off from each other ({', '.join(look.partitions)})"
    return "" if len(left) * 2 > len(look.members) else f"RabbitMQ: of {len(look.members)} nodes, {named(left)} running"


def ovn_refuses(name: str, look: ovn_cluster.Look, away: Collection[str]) -> str:
    """Return why a database of OVN cannot do without some members; empty where it can."""
    left = sorted(look.members[sid] for sid in look.connected if look.members[sid] not in away)
    if not look.serving:
        return f"OVN's {name} database: the server of this host knows no leader. {look.error}".rstrip()
    if len(left) * 2 > len(look.members):
        return ""
    return f"OVN's {name} database: of {len(look.members)} members, {named(left)} connected"


def proxies_refuse(rows: Collection[Mapping[str, str]], proxies: Collection[str], others: Collection[str]) -> str:
    """Return which proxies have no server that is up on other controllers; empty where all have one."""
    served = {row["pxname"] for row in rows if row["svname"] in others and row["status"].startswith("UP")}
    missing = [name for name in proxies if name not in served]
    return f"HAProxy finds no other controller up for {', '.join(missing)}" if missing else ""


def named(left: Collection[str]) -> str:
    """Return who would be left, as the middle of a sentence."""
    return f"only {', '.join(left)} would be" if left else "none would be"


def ask(module: AnsibleModule) -> list[str]:
    """Return what speaks against doing without the controller, one line for each engine."""
    params = module.params
    members = params["members"]
    try:
        done = subprocess.run([PROGRAM, "show"], capture_output=True, text=True, timeout=ASK_SECONDS, check=True)
        states: dict[str, Any] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return [f"MariaDB: its members cannot be asked: {error}"]
    # Those in maintenance may be switched off at any time.
    away = {params["name"], *(host for host, state in states.items() if state and state.get("maintenance"))}

    def called(option: str) -> set[str]:
        """Return how an engine calls those that are away."""
        return {known for host, known in zip(members, params[option], strict=True) if host in away}

    found, silence = rabbitmq_cluster.ask(module)
    problems = [
        database_refuses(states, away),
        queue_refuses(rabbitmq_cluster.Look(**found, error=silence), called("nodes")),
        *(
            ovn_refuses(name, ovn_cluster.ask(module, database), called(name))
            for name, database in ovn_cluster.DATABASES.items()
        ),
    ]
    others = [host for host in members if host not in away]
    try:
        rows = haproxy_server.rows(params["socket"], others, params["proxies"])
    except OSError as failure:
        problems.append(f"HAProxy does not answer at {params['socket']}: {failure}")
    else:
        problems.append(proxies_refuse(rows, params["proxies"], others))
    return [problem for problem in problems if problem]


def run(module: AnsibleModule) -> None:
    """Fail where an engine cannot do without the controller."""
    deadline = time.monotonic() + module.params["timeout"]
    problems = look_until(module, lambda: ask(module), lambda found: not found, deadline, POLL_SECONDS)
    if problems:
        listed = "\n".join(f"- {problem}" for problem in problems)
        module.fail_json(
            msg=f"The cloud cannot do without {module.params['name']} now. Nothing has been changed.\n{listed}",
            problems=problems,
        )
    module.exit_json(changed=False, problems=[])
