# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Say whether a Ceph cluster is well, how full it is, what is down, and what the logs of what is down end with.

Documented in library/ceph_health.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.storage.cluster import POLL_SECONDS, CephError, Cluster, reach
from ansible.module_utils.kilonova.storage.osds import DIRECTORIES
from ansible.module_utils.kilonova.system.logs import file_lines, unit_log

ARGUMENT_SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "report_only": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 120},
    "lines": {"type": "int", "default": 10},
}
# Warnings of Ceph by which clients or copies suffer. Others are passed on as notes.
BROKEN = (
    *("OSD_DOWN", "OSD_HOST_DOWN", "OSD_NEARFULL", "OSD_BACKFILLFULL", "OSD_FULL", "POOL_NEAR_FULL", "POOL_FULL"),
    *("MON_DOWN", "MON_DISK_CRIT", "MON_CLOCK_SKEW", "MGR_DOWN", "PG_AVAILABILITY", "PG_DEGRADED", "SLOW_OPS"),
    "AUTH_INSECURE_GLOBAL_ID_RECLAIM_ALLOWED",
)
# What passes by itself while hosts start.
PASSING = ("OSD_DOWN", "OSD_HOST_DOWN", "MON_DOWN", "MGR_DOWN", "PG_AVAILABILITY", "PG_DEGRADED", "SLOW_OPS")
DETAILS = 5


@dataclass
class Health:
    """What the monitors say."""

    status: str = ""
    # Messages by code.
    problems: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    used_percent: float = 0
    pools: list[dict[str, Any]] = field(default_factory=list)
    osds: list[dict[str, Any]] = field(default_factory=list)
    monitors: list[dict[str, Any]] = field(default_factory=list)


def message_of(check: Mapping[str, Any]) -> str:
    """Return what Ceph says of a check, with its first details."""
    details = [one["message"] for one in check.get("detail", [])]
    more = [f"and {len(details) - DETAILS} more"] * (len(details) > DETAILS)
    return "\n".join([check["summary"]["message"], *(f"    {line}" for line in details[:DETAILS] + more)])


def osds_of(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the OSDs with their hosts, from what 'ceph osd tree' says."""
    hosts = {child: node["name"] for node in tree["nodes"] if node["type"] == "host" for child in node["children"]}
    nodes = [node for node in [*tree["nodes"], *tree.get("stray", [])] if node["type"] == "osd"]
    return [
        {
            "number": node["id"],
            "host": hosts.get(node["id"], "?"),
            "up": node["status"] == "up",
            "in": node["reweight"] > 0,
        }
        for node in sorted(nodes, key=lambda node: int(node["id"]))
    ]


def judge(
    health: Mapping[str, Any], full: Mapping[str, Any], tree: Mapping[str, Any], quorum: Mapping[str, Any]
) -> Health:
    """Return what the answers of the monitors mean."""
    found = Health(health["status"])
    for code, check in sorted(health["checks"].items()):
        if not check.get("muted"):
            broken = check["severity"] == "HEALTH_ERR" or code in BROKEN
            (found.problems if broken else found.notes)[code] = message_of(check)
    found.used_percent = round(100 * full["stats"]["total_used_raw_ratio"], 1)
    found.pools = [
        {
            "name": pool["name"],
            "stored_mib": int(pool["stats"]["stored"]) // 2**20,
            "available_mib": int(pool["stats"]["max_avail"]) // 2**20,
        }
        for pool in full["pools"]
    ]
    found.osds = osds_of(tree)
    names = [monitor["name"] for monitor in quorum["monmap"]["mons"]]
    found.monitors = [{"name": name, "up": name in quorum["quorum_names"]} for name in names]
    return found


def ask(cluster: Cluster) -> Health:
    """Return the health of the cluster."""
    return judge(
        cluster.command("health", detail="detail"),
        cluster.command("df"),
        cluster.command("osd tree"),
        cluster.command("quorum_status"),
    )


def logs_here(found: Health, name: str, lines: int) -> list[str]:
    """Return the ends of the logs of what is down on this host."""
    down = [one["number"] for one in found.osds if not one["up"]]
    here = [number for number in down if os.path.isdir(f"{DIRECTORIES}/ceph-{number}")]
    units = [(f"ceph-osd@{number}", f"/var/log/ceph/ceph-osd.{number}.log") for number in here]
    if any(one["name"] == name and not one["up"] for one in found.monitors):
        units.append((f"ceph-mon@{name}", f"/var/log/ceph/ceph-mon.{name}.log"))
    return [log_of(unit, path, lines) for unit, path in units]


def commands(found: Health) -> list[str]:
    """Return what starts that which is down."""
    units = [(f"ceph-osd@{one['number']}", one["host"]) for one in found.osds if not one["up"]]
    units += [(f"ceph-mon@{one['name']}", one["name"]) for one in found.monitors if not one["up"]]
    return [f"systemctl restart {unit} on {host}" for unit, host in units]


def log_of(unit: str, path: str, lines: int) -> str:
    """Return the ends of the journal and the log file of a unit."""
    own = [f"--- {path}", *file_lines(path, lines)] if os.path.exists(path) else []
    return "\n".join([unit_log(unit, lines), *own])


def report(found: Health) -> dict[str, Any]:
    """Return the result of the module."""
    return {
        "status": found.status,
        "problems": list(found.problems.values()),
        "notes": list(found.notes.values()),
        "used_percent": found.used_percent,
        "pools": found.pools,
        "osds": found.osds,
        "monitors": found.monitors,
    }


def fail(module: AnsibleModule, found: Health, logs: Sequence[str]) -> None:
    """End the module with what is wrong, and the commands that mend it."""
    told = report(found)
    lines = [*found.problems.values(), *commands(found)]
    text = "\n".join(["The store is not well:", *(f"  {line}" for line in lines), *logs])
    module.fail_json(msg=text, lines=lines, logs=list(logs), **told)


def run(module: AnsibleModule) -> None:
    """Ask, wait for what passes by itself, and report."""
    params = module.params
    name, lines = params["name"], params["lines"]
    deadline = time.monotonic() + (0 if params["report_only"] else params["timeout"])
    try:
        cluster = reach(5 if params["report_only"] else params["timeout"])
        found = ask(cluster)
        while found.problems.keys() & set(PASSING) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            found = ask(cluster)
    except CephError as error:
        text = f"no quorum of monitors answers: {error}"
        logs = [log_of(f"ceph-mon@{name}", f"/var/log/ceph/ceph-mon.{name}.log", lines)]
        found = Health("unknown", {"": text})
        if not params["report_only"]:
            fail(module, found, logs)
        module.exit_json(changed=False, **report(found))
    if found.problems and not params["report_only"]:
        fail(module, found, logs_here(found, name, lines))
    module.exit_json(changed=False, **report(found))
