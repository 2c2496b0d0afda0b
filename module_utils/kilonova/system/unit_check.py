# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Find the units that do not run as wanted, with the reason, the command that mends it, and the end of the log.

Documented in library/unit_check.py.
"""

from __future__ import annotations

import csv
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system import certificates
from ansible.module_utils.kilonova.system.logs import unit_log
from ansible.module_utils.kilonova.system.systemctl import Systemctl
from ansible.module_utils.kilonova.system.unit_readiness import not_ready
from ansible.module_utils.kilonova.system.units import Unit, full_name, is_enabled

POLL_SECONDS = 0.25
SETTLE_SECONDS = 1.0
# A unit that runs gets this long until it listens.
LISTEN_SECONDS = 60.0
PROXY = "haproxy.service"
UNIT_OPTIONS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "title": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
    "enabled": {"type": "bool"},
}
ARGUMENT_SPEC: dict[str, Any] = {
    "units": {"type": "list", "elements": "dict", "required": True, "options": UNIT_OPTIONS},
    "certificates": {"type": "list", "elements": "dict", "default": [], "options": certificates.OPTIONS},
    "addresses": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "float", "default": 10.0},
    "start_timeout": {"type": "float", "default": 120.0},
    "lines": {"type": "int", "default": 10},
    "maintenance": {"type": "path"},
    "haproxy_socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
}


def judge(unit: Unit, first_restarts: int, now: float) -> tuple[str, str, bool]:
    """Return what is wrong ("" for nothing), the command that mends it, and whether waiting is pointless."""
    load = unit.get("LoadState")
    if load == "masked":
        return "is masked", f"systemctl unmask {unit.name} && systemctl start {unit.name}", True
    if load != "loaded":
        return f"cannot be loaded ({load})", "ansible-playbook site.yml", True
    reason, hopeless = not_ready(unit, first_restarts, SETTLE_SECONDS, {}, now)
    if reason:
        verb = "restart" if unit.get("ActiveState") in ("failed", "activating") else "start"
        return reason, f"systemctl {verb} {unit.name}", hopeless
    if unit.enabled and not is_enabled(unit) and unit.get("UnitFileState") == "disabled":
        return "runs, but does not start at boot", f"systemctl enable {unit.name}", True
    return "", "", True


def statistics(path: str) -> str:
    """Return what HAProxy says of its proxies and servers, as CSV; "" if it does not answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(2.0)
        try:
            connection.connect(path)
            connection.sendall(b"show stat\n")
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")
        except OSError:
            return ""


def switched_off(text: str) -> Iterator[dict[str, str]]:
    """Yield an entry for each server that somebody has taken out of HAProxy at run time."""
    for row in csv.DictReader(text.removeprefix("# ").splitlines()):
        status = (row.get("status") or "").split(" ")[0]
        if row.get("svname") not in ("FRONTEND", "BACKEND") and status in ("MAINT", "DRAIN") and not row.get("tracked"):
            server = f"{row['pxname']}/{row['svname']}"
            reason = f"sends no requests to {server}, which was set to {status} at run time"
            yield {"unit": PROXY, "reason": reason, "command": f"systemctl restart {PROXY}"}


def held(module: AnsibleModule, addresses: list[str]) -> list[str]:
    """Return those of the addresses that this host has."""
    if not addresses:
        return []
    _, text, _ = module.run_command(["ip", "-oneline", "-4", "address", "show"], check_rc=True)
    own = {word.partition("/")[0] for line in text.splitlines() for word in line.split()[3:4]}
    return [address for address in addresses if address in own]


def dies(unit: Unit) -> bool:
    """Return whether systemd has restarted the unit more than once, or is about to."""
    return unit.get("SubState").startswith("auto-restart") or int(unit.get("NRestarts") or 0) > 1


def find_broken(systemctl: Systemctl, units: list[Unit], timeout: float, start_timeout: float) -> list[dict[str, str]]:
    """Return the units that are broken. If all others are starting, those get more time."""
    begin = time.monotonic()
    systemctl.read(units)
    first = {unit.name: int(unit.get("NRestarts") or 0) for unit in units}
    while True:
        found = {unit.name: judge(unit, first[unit.name], time.time()) for unit in units}
        waited_for = [unit for unit in units if found[unit.name][0] and not found[unit.name][2]]
        hurry = any(reason and hopeless for reason, _, hopeless in found.values()) or any(map(dies, waited_for))
        if not waited_for or time.monotonic() >= begin + (timeout if hurry else start_timeout):
            break
        time.sleep(POLL_SECONDS)
        systemctl.read(units)
    broken = []
    for name, (reason, command, _) in found.items():
        if reason:
            broken.append({"unit": name, "reason": reason, "command": command})
    return broken


def command_of(found: certificates.Found) -> str:
    """Return what mends a socket."""
    return f"systemctl restart {found.unit}" if found.refused else "ansible-playbook site.yml"


def run(module: AnsibleModule) -> None:
    """Return the broken units."""
    given = {full_name(entry["name"]): entry for entry in module.params["units"] if entry["state"] == "started"}
    units = [
        Unit(name=name, state="started", enabled=entry["enabled"], masked=None, reads=[], ports=[])
        for name, entry in given.items()
    ]
    timeouts = (module.params["timeout"], module.params["start_timeout"])
    broken = find_broken(Systemctl(module), units, *timeouts) if units else []
    # It may run although it is masked.
    off = list(switched_off(statistics(module.params["haproxy_socket"]))) if PROXY in given else []
    broken += off
    dead = {one["unit"] for one in broken}
    asked = [one for one in module.params["certificates"] if one["unit"] not in dead]
    # RabbitMQ listens to nobody until it has found its cluster again, although its unit runs.
    served = certificates.ask_all(asked, min(LISTEN_SECONDS, module.params["start_timeout"]))
    broken += [
        {"unit": found.unit, "reason": found.reason, "command": command_of(found)} for found in served if found.reason
    ]
    for one in broken:
        one["title"] = given[one["unit"]]["title"]
        one["log"] = unit_log(one["unit"], module.params["lines"])
    foreign = [f"{PROXY} {one['reason']}" for one in off]
    if module.params["maintenance"] and os.path.exists(module.params["maintenance"]):
        foreign.append(f"{module.params['maintenance']}: this host is in maintenance")
    days = [{"title": found.title, "days": found.days} for found in served if found.days is not None]
    module.exit_json(
        changed=False,
        host=socket.gethostname(),
        broken=broken,
        foreign=foreign,
        certificates=days,
        held=held(module, module.params["addresses"]),
    )
