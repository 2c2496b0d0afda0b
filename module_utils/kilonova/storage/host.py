# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Take a storage host out of service for a while, put it back, or take it out of the cluster for good.

Documented in library/ceph_host.py. Each state may be asked for again after a run that was killed.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.storage.cluster import DRY_RUN_TIMEOUT, POLL_SECONDS, CephError, Cluster, reach
from ansible.module_utils.kilonova.storage.health import osds_of

ARGUMENT_SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "monitor": {"type": "str", "required": True},
    "state": {"type": "str", "required": True, "choices": ["maintenance", "in_service", "drained", "absent"]},
    "timeout": {"type": "int", "default": 1800},
}
# Seconds to wait for a quorum.
TIMEOUT = 30
# How full the other hosts may become.
FULL = 0.85


@dataclass
class State:
    """What the monitors say of a host and of those that would be left."""

    # Numbers of its OSDs, and of those that clients use.
    osds: list[int] = field(default_factory=list)
    taken_in: list[int] = field(default_factory=list)
    up: list[int] = field(default_factory=list)
    noout: bool = False
    # Monitors, and those in the quorum.
    monitors: list[str] = field(default_factory=list)
    quorum: list[str] = field(default_factory=list)
    other_hosts: int = 0
    # Copies that pools with one copy on each host keep.
    copies: dict[str, int] = field(default_factory=dict)
    # KiB in use in the whole cluster, and KiB that the others have.
    used: int = 0
    left: int = 0


def read(cluster: Cluster, name: str) -> State:
    """Return the state of a host by its name in the crush map."""
    tree, dump = osds_of(cluster.command("osd tree")), cluster.command("osd dump")
    quorum, sizes = cluster.command("quorum_status"), cluster.command("osd df")["nodes"]
    own = [one for one in tree if one["host"] == name]
    by_host = {
        rule["rule_id"]
        for rule in cluster.command("osd crush rule dump")
        if any(step.get("type") == "host" for step in rule["steps"])
    }
    numbers = [one["number"] for one in own]
    return State(
        numbers,
        [one["number"] for one in own if one["in"]],
        [one["number"] for one in own if one["up"]],
        "noout" in dump.get("crush_node_flags", {}).get(name, []),
        [one["name"] for one in quorum["monmap"]["mons"]],
        quorum["quorum_names"],
        len({one["host"] for one in tree if one["in"] and one["up"] and one["host"] != name}),
        {pool["pool_name"]: pool["size"] for pool in dump["pools"] if pool["crush_rule"] in by_host},
        sum(node["kb_used"] for node in sizes),
        sum(node["kb"] for node in sizes if node["id"] not in numbers),
    )


def monitors_refuse(state: State, monitor: str, for_good: bool) -> str:
    """Return why the monitors cannot do without one; empty where they can."""
    if monitor not in state.monitors:
        return ""
    left = [name for name in state.quorum if name != monitor]
    total = len(state.monitors) - for_good
    if len(left) > total // 2:
        return ""
    return (
        f"Without the monitor {monitor}, {len(left)} of {total} monitors are left, and a cluster needs more than half "
        "of them: it would stand still."
    )


def removal_refuses(state: State, name: str) -> str:
    """Return why a host cannot be taken out of the cluster; empty where it can."""
    if not state.osds:
        return ""
    short = {pool: size for pool, size in state.copies.items() if size > state.other_hosts}
    if short:
        pool, size = next(iter(sorted(short.items())))
        return (
            f"Pool {pool} keeps {size} copies on different hosts, and without {name} there are {state.other_hosts} "
            "hosts whose OSDs are up: copies would be missing. Add a host first."
        )
    if not state.copies:
        return f"The copies of pools are not spread over hosts: {name} cannot be emptied safely. Add hosts first."
    if state.used > FULL * state.left:
        return (
            f"The cluster stores {state.used // 2**20} GiB, and without {name} it has {state.left // 2**20} GiB: it "
            f"would be more than {FULL:.0%} full. Add disks first, or delete something."
        )
    return ""


def wait_for(condition: Callable[[], bool], timeout: float) -> bool:
    """Return whether a condition became true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def pausing(cluster: Cluster, numbers: Sequence[int]) -> str:
    """Return why data could not be read and written without some OSDs; empty where it could."""
    try:
        cluster.command("osd ok-to-stop", ids=[str(number) for number in numbers])
    except CephError as error:
        if error.code == errno.EBUSY:
            return str(error)
        raise
    return ""


def keeping(cluster: Cluster, numbers: Sequence[int]) -> str:
    """Return which OSDs keep what is not elsewhere yet, or why nobody knows; empty where none does."""
    try:
        # In this form, the answer is no error where some cannot be destroyed.
        answer = cluster.command("osd safe-to-destroy", ids=[str(number) for number in numbers])
    except CephError as error:
        # While placement groups change places.
        if error.code == errno.EAGAIN:
            return str(error)
        raise
    needed = sorted({*numbers} - {*answer["safe_to_destroy"]})
    return f"osd.{', osd.'.join(map(str, needed))} hold what is not elsewhere yet" if needed else ""


def whole(cluster: Cluster) -> bool:
    """Return whether everything has all its copies."""
    checks = cluster.command("health")["checks"]
    return not {*checks} & {"PG_DEGRADED", "PG_AVAILABILITY", "OSD_DOWN", "OSD_HOST_DOWN", "MON_DOWN"}


def maintenance(module: AnsibleModule, cluster: Cluster, state: State, params: Mapping[str, Any]) -> list[str]:
    """Let the host be down without copies being made elsewhere."""
    why = monitors_refuse(state, params["monitor"], for_good=False)
    if not why and state.up:
        why = pausing(cluster, state.up)
    if why:
        module.fail_json(msg=f"{params['name']} cannot be down now. Nothing has been changed. {why}")
    if state.noout or not state.osds:
        return []
    if not module.check_mode:
        cluster.raw("osd set-group", flags="noout", who=[params["name"]])
    return [f"make no copies elsewhere while {params['name']} is down"]


def in_service(module: AnsibleModule, cluster: Cluster, state: State, params: Mapping[str, Any]) -> list[str]:
    """Wait until the host is back and everything has its copies, and let copies be made again if it is down."""
    if not module.check_mode and not wait_for(lambda: whole(cluster), params["timeout"]):
        detail = [check["summary"]["message"] for check in cluster.command("health")["checks"].values()]
        module.fail_json(
            msg=f"The store is not whole after {params['timeout']} s: {'; '.join(detail)}. "
            f"{params['name']} stays in maintenance."
        )
    if not state.noout:
        return []
    if not module.check_mode:
        cluster.raw("osd unset-group", flags="noout", who=[params["name"]])
    return [f"make copies elsewhere when {params['name']} is down"]


def drained(module: AnsibleModule, cluster: Cluster, state: State, params: Mapping[str, Any]) -> list[str]:
    """Empty the OSDs of the host, and wait until nothing is kept there only."""
    name, numbers = params["name"], state.osds
    if why := monitors_refuse(state, params["monitor"], for_good=True) or removal_refuses(state, name):
        module.fail_json(msg=f"{name} cannot be removed. Nothing has been changed. {why}")
    changes = [f"empty osd.{number}" for number in state.taken_in]
    if module.check_mode or not numbers:
        return changes
    if state.taken_in:
        cluster.raw("osd out", ids=[str(number) for number in state.taken_in])
    if not wait_for(lambda: not keeping(cluster, numbers), params["timeout"]):
        why = keeping(cluster, numbers)
        module.fail_json(
            msg=f"{name} is not empty after {params['timeout']} s: {why}. Copies go on being made. Run this again "
            f"later, or take its OSDs in again: ceph osd in {' '.join(map(str, numbers))}."
        )
    return changes


def absent(module: AnsibleModule, cluster: Cluster, state: State, params: Mapping[str, Any]) -> list[str]:
    """Delete the OSDs of the host, its monitor and manager from the cluster. Their units have been stopped."""
    name, monitor = params["name"], params["monitor"]
    why = monitors_refuse(state, monitor, for_good=True)
    patience = 0 if module.check_mode else min(TIMEOUT, params["timeout"])
    if not why and state.osds and not wait_for(lambda: not keeping(cluster, state.osds), patience):
        why = keeping(cluster, state.osds)
    if why:
        module.fail_json(msg=f"{name} cannot be removed. Nothing has been changed. {why}")
    changes = [f"remove osd.{number}" for number in state.osds]
    changes += [f"remove the monitor {monitor}"] if monitor in state.monitors else []
    if module.check_mode:
        return changes
    for number in state.osds:
        cluster.raw("osd purge-actual", id=number, yes_i_really_mean_it=True)
    if state.osds:
        cluster.raw("osd crush remove", name=name)
    if monitor in state.monitors:
        cluster.raw("mon remove", name=monitor)
    cluster.raw("auth rm", entity=f"mgr.{monitor}")
    return changes


STATES = {"maintenance": maintenance, "in_service": in_service, "drained": drained, "absent": absent}


def run(module: AnsibleModule) -> None:
    """Bring the host to the state."""
    params = module.params
    try:
        cluster = reach(DRY_RUN_TIMEOUT if module.check_mode else TIMEOUT)
        state = read(cluster, params["name"])
        changes = STATES[params["state"]](module, cluster, state, params)
    except CephError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(changes), changes=changes, osds=state.osds)
