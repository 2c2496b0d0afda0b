# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Wait until systemd units are up: active, settled, and listening on their ports."""

from __future__ import annotations

import glob
import os
import re
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.logs import unit_log
from ansible.module_utils.kilonova.system.systemctl import Systemctl
from ansible.module_utils.kilonova.system.units import Unit

POLL_SECONDS = 0.25
# A unit that systemd restarted this often during the wait will not come up by waiting longer.
HOPELESS_RESTARTS = 3
LISTEN = "0A"


def listening(text: str) -> dict[int, set[str]]:
    """Return {port: inodes of its listening sockets} from the text of /proc/net/tcp or tcp6."""
    found: dict[int, set[str]] = {}
    for line in text.splitlines()[1:]:
        fields = line.split()
        if fields[3] == LISTEN:
            found.setdefault(int(fields[1].rsplit(":", 1)[1], 16), set()).add(fields[9])
    return found


def all_listening() -> dict[int, set[str]]:
    """Return {port: inodes of its listening sockets} of this host."""
    found: dict[int, set[str]] = {}
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(name, encoding="ascii") as stream:
                for port, inodes in listening(stream.read()).items():
                    found.setdefault(port, set()).update(inodes)
        except OSError:
            continue
    return found


def in_group(cgroup_text: str, control_group: str) -> bool:
    """Return whether the text of /proc/PID/cgroup (v1 or v2) places a process in a unit's control group."""
    paths = (line.split(":", 2)[-1] for line in cgroup_text.splitlines())
    return any(re.search(re.escape(control_group) + r"(/|$)", path) for path in paths)


def sockets_of(control_group: str) -> set[str]:
    """Return the inodes of all sockets that the processes of a control group hold."""
    found: set[str] = set()
    for directory in glob.glob("/proc/[0-9]*") if control_group else []:
        try:
            with open(f"{directory}/cgroup", encoding="utf-8") as stream:
                if not in_group(stream.read(), control_group):
                    continue
            for descriptor in os.scandir(f"{directory}/fd"):
                target = os.readlink(descriptor.path)
                if target.startswith("socket:["):
                    found.add(target[8:-1])
        except OSError:
            continue  # the process or the descriptor is gone
    return found


def not_ready(
    unit: Unit, first_restarts: int, settle: float, ports: dict[int, set[str]], now: float
) -> tuple[str, bool]:
    """Return what a unit still lacks ("" if it is up), and whether waiting longer is pointless."""
    active = unit.get("ActiveState")
    if unit.finished:
        return "", False
    if active == "failed":
        return f"failed ({unit.get('Result')})", True
    restarts = int(unit.get("NRestarts") or 0) - first_restarts
    if restarts >= HOPELESS_RESTARTS:
        return f"died and was restarted by systemd {restarts} times", True
    if active != "active":
        # Without a time stamp, the job still waits for another unit and conditions were not checked yet.
        condition_failed = unit.get("ConditionTimestamp") != "" and unit.get("ConditionResult") == "no"
        if active == "inactive" and condition_failed and not unit.get("InactiveExitTimestamp"):
            return "a condition of its unit file is not met (see 'systemctl status')", True
        if active == "inactive" and unit.get("Job") in ("", "0"):
            return "is inactive, and systemd is not starting it any more", True
        return f"is {active} ({unit.get('SubState')})", False
    if unit.get("Job") not in ("", "0"):
        return "has not restarted yet: its restart waits for another unit", False
    if unit.get("ExecMainPID") not in ("", "0") and unit.get("SubState") == "running" and now - unit.since < settle:
        return f"has been running for less than {settle} s", False
    missing = [port for port in unit.ports if port not in ports]
    if not missing and unit.ports:
        own = sockets_of(unit.get("ControlGroup"))
        missing = [port for port in unit.ports if not ports[port] & own]
    if missing:
        return f"does not listen on port {', '.join(map(str, missing))}", False
    return "", False


def wait_for(module: AnsibleModule, systemctl: Systemctl, units: list[Unit]) -> None:
    """Wait until all units are up, or fail with the log of each that is not."""
    settle, deadline = module.params["settle"], time.monotonic() + module.params["timeout"]
    systemctl.read(units)
    first = {unit.name: int(unit.get("NRestarts") or 0) for unit in units}
    pending = units
    while True:
        ports = all_listening() if any(unit.ports for unit in pending) else {}
        states = {unit.name: not_ready(unit, first[unit.name], settle, ports, time.time()) for unit in pending}
        pending = [unit for unit in pending if states[unit.name][0]]
        if not pending:
            return
        over = time.monotonic() >= deadline
        if over or all(states[unit.name][1] for unit in pending):
            break
        time.sleep(POLL_SECONDS)
        systemctl.read(pending)
    late = f" within {module.params['timeout']} s" if over else ""
    text = "\n".join(f"{unit.name} {states[unit.name][0]}\n{unit_log(unit.name)}" for unit in pending)
    module.fail_json(
        msg=f"{len(pending)} of {len(units)} units did not come up{late}:\n{text}",
        broken=[{"name": unit.name, "reason": states[unit.name][0]} for unit in pending],
        changed=any(unit.verbs for unit in units),
    )
