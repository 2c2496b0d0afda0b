# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Keep settings, the crush rule, pools and keys of a Ceph cluster as wanted, in one call.

Documented in library/ceph_pools.py.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.storage.cluster import DRY_RUN_TIMEOUT, POLL_SECONDS, CephError, Cluster, reach
from ansible.module_utils.kilonova.system.dry_run import not_looked_at

ARGUMENT_SPEC: dict[str, Any] = {
    "monitor": {"type": "str", "default": ""},
    "options": {"type": "dict", "default": {}},
    "min_compat_client": {"type": "str", "default": ""},
    "rule": {
        "type": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "failure_domain": {"type": "str", "required": True, "choices": ["osd", "host"]},
        },
    },
    "pools": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "size": {"type": "int", "required": True},
            "min_size": {"type": "int", "required": True},
            "application": {"type": "str", "default": "rbd"},
            "create": {"type": "bool", "default": True},
        },
    },
    "entities": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "no_log": False,
        "options": {
            "name": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": True},
            "caps": {"type": "dict", "required": True},
        },
    },
    "timeout": {"type": "int", "default": 120},
}


@dataclass
class State:
    """What the monitors say."""

    # Values of options, by section and name.
    options: dict[tuple[str, str], str] = field(default_factory=dict)
    rules: dict[str, int] = field(default_factory=dict)
    # What holds at most one copy of an object, by the number of a rule.
    domains: dict[int, str] = field(default_factory=dict)
    pools: dict[str, dict[str, Any]] = field(default_factory=dict)
    entities: dict[str, dict[str, Any]] = field(default_factory=dict)
    min_compat_client: str = ""


@dataclass
class Change:
    """One command to the monitors, its line for the operator, and what it replaces."""

    line: str
    command: dict[str, Any]
    data: bytes = b""
    before: str = "absent"
    after: str = "present"
    # What the diff calls it, where the line has the value in it.
    key: str = ""


@dataclass
class Plan:
    """What has to be done, and what only an operator may decide."""

    changes: list[Change] = field(default_factory=list)
    needs_you: list[str] = field(default_factory=list)


def read(cluster: Cluster) -> State:
    """Return the state of the cluster."""
    pools = {pool["pool_name"]: pool for pool in cluster.command("osd pool ls", detail="detail")}
    rules = cluster.command("osd crush rule dump")
    return State(
        {(one["section"], one["name"]): str(one["value"]) for one in cluster.command("config dump")},
        {rule["rule_name"]: int(rule["rule_id"]) for rule in rules},
        {int(rule["rule_id"]): domain_of(rule) for rule in rules},
        pools,
        {one["entity"]: one for one in cluster.command("auth ls")["auth_dump"]},
        cluster.command("osd dump")["require_min_compat_client"],
    )


def domain_of(rule: Mapping[str, Any]) -> str:
    """Return what holds at most one copy of an object with a rule."""
    return next((step["type"] for step in rule["steps"] if step["op"].startswith("choose") and "type" in step), "")


def same(first: str, second: str) -> bool:
    """Return whether two values of an option are one: Ceph writes numbers and truth values in its own way."""
    return first.strip().lower() == second.strip().lower()


def keyring(name: str, key: str, caps: Mapping[str, str]) -> str:
    """Return the entry of an entity in a keyring."""
    return "".join([f"[{name}]\n\tkey = {key}\n", *(f'\tcaps {kind} = "{text}"\n' for kind, text in caps.items())])


def plan_pool(wanted: Mapping[str, Any], rule: str, domain: str, state: State, plan: Plan) -> None:
    """Add what a pool needs."""
    name, found = wanted["name"], state.pools.get(wanted["name"])
    if found is None and not wanted["create"]:
        return
    if found is None:
        create = {"prefix": "osd pool create", "pool": name, "pool_type": "replicated", "autoscale_mode": "on"}
        plan.changes.append(Change(f"pool {name}", create | ({"rule": rule} if rule else {})))
        found = {"crush_rule": None, "pg_autoscale_mode": "on", "application_metadata": {}}

    def put(variable: str, before: Any, after: Any, **more: Any) -> None:
        command = {"prefix": "osd pool set", "pool": name, "var": variable, "val": str(after), **more}
        line, key = f"pool {name}: {variable} {after}", f"pool {name}: {variable}"
        plan.changes.append(Change(line, command, b"", str(before), str(after), key))

    # The rule that a cluster begins with may be as good.
    if rule and found["crush_rule"] is not None and state.domains.get(found["crush_rule"]) != domain:
        names = {number: text for text, number in state.rules.items()}
        put("crush_rule", names.get(found["crush_rule"], found["crush_rule"]), rule)
    size = found.get("size")
    if size is not None and size > wanted["size"]:
        plan.needs_you.append(
            f"Ceph: pool {name} keeps {size} copies of each object, and {wanted['size']} are wanted. Fewer copies are "
            f"a decision of yours: ceph osd pool set {name} size {wanted['size']}, or set ceph_pools_size = {size}"
        )
    elif size != wanted["size"]:
        put("size", size, wanted["size"], **({"yes_i_really_mean_it": True} if wanted["size"] == 1 else {}))
    if (size is None or size <= wanted["size"]) and found.get("min_size") != wanted["min_size"]:
        put("min_size", found.get("min_size"), wanted["min_size"])
    if found["pg_autoscale_mode"] != "on":
        put("pg_autoscale_mode", found["pg_autoscale_mode"], "on")
    if wanted["application"] not in found["application_metadata"]:
        command = {"prefix": "osd pool application enable", "pool": name, "app": wanted["application"]}
        plan.changes.append(Change(f"pool {name}: application {wanted['application']}", command))


def plan_entity(wanted: Mapping[str, Any], state: State, plan: Plan) -> None:
    """Add what an entity needs. Its key is shown nowhere."""
    name, caps = wanted["name"], {kind: str(text) for kind, text in wanted["caps"].items()}
    found = state.entities.get(name)
    if found and found["key"] == wanted["key"] and found["caps"] == caps:
        return
    what = "" if found is None else " (key)" if found["key"] != wanted["key"] else " (caps)"
    plan.changes.append(
        Change(
            f"{name}{what}",
            {"prefix": "auth import"},
            keyring(name, wanted["key"], caps).encode(),
            "absent" if found is None else f"key {'other' if '(key)' in what else 'same'}, caps {found['caps']}",
            f"key {'same' if '(caps)' in what else 'new'}, caps {caps}",
        )
    )


def make_plan(state: State, params: Mapping[str, Any]) -> Plan:
    """Return the commands that bring the cluster to what the parameters say."""
    plan = Plan()
    for section, options in params["options"].items():
        for name, value in options.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            found = state.options.get((section, name))
            if found is None or not same(found, text):
                command = {"prefix": "config set", "who": section, "name": name, "value": text}
                line, key = f"{section}: {name} = {text}", f"{section}: {name}"
                plan.changes.append(Change(line, command, b"", str(found), text, key))
    if params["min_compat_client"] > state.min_compat_client:
        command = {"prefix": "osd set-require-min-compat-client", "version": params["min_compat_client"]}
        line = f"clients of {params['min_compat_client']} or newer"
        plan.changes.append(Change(line, command, b"", state.min_compat_client, params["min_compat_client"]))
    rule = params["rule"]
    if rule and rule["name"] not in state.rules:
        command = {"prefix": "osd crush rule create-replicated", "name": rule["name"], "root": "default"}
        plan.changes.append(Change(f"crush rule {rule['name']}", command | {"type": rule["failure_domain"]}))
    for pool in params["pools"]:
        plan_pool(pool, rule["name"] if rule else "", rule["failure_domain"] if rule else "", state, plan)
    for entity in params["entities"]:
        plan_entity(entity, state, plan)
    return plan


def diff_of(changes: list[Change]) -> dict[str, str]:
    """Return a diff with one line for each change."""
    sides = {"before": "".join(f"{one.key or one.line}: {one.before}\n" for one in changes)}
    sides["after"] = "".join(f"{one.key or one.line}: {one.after}\n" for one in changes)
    return {**sides, "before_header": "Ceph", "after_header": "Ceph"}


def wait_for_quorum(cluster: Cluster, monitor: str, timeout: float) -> None:
    """Return when a monitor is in the quorum. Raises CephError where it is not in time."""
    deadline = time.monotonic() + timeout
    while monitor not in (names := cluster.command("quorum_status")["quorum_names"]):
        if time.monotonic() >= deadline:
            raise CephError(f"the monitor {monitor} is not in the quorum ({', '.join(names)})", errno.ETIMEDOUT)
        time.sleep(POLL_SECONDS)


def run(module: AnsibleModule) -> None:
    """Read, compare, change."""
    params, checking = module.params, module.check_mode
    timeout = DRY_RUN_TIMEOUT if checking else params["timeout"]
    try:
        cluster = reach(timeout)
        if params["monitor"] and not checking:
            wait_for_quorum(cluster, params["monitor"], timeout)
        state = read(cluster)
    except CephError as error:
        if not checking:
            module.fail_json(msg=f"Ceph's monitors could not be asked: {error}")
        if error.code != errno.ENOENT:
            not_looked_at(module, "Ceph's pools and keys", error, changes=[])
        # Nothing of Ceph is on this host yet.
        state = State()
    plan = make_plan(state, params)
    try:
        for change in [] if checking else plan.changes:
            cluster.raw(change.command["prefix"], change.data, **_arguments(change.command))
    except CephError as error:
        module.fail_json(msg=str(error))
    changes = [f"Ceph: {change.line}" for change in plan.changes]
    result = {"needs_you": plan.needs_you} if plan.needs_you else {}
    module.exit_json(changed=bool(changes), changes=changes, diff=diff_of(plan.changes), **result)


def _arguments(command: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in command.items() if key != "prefix"}
