# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Detect whether a compute changed since a guest ran on it. The logic of the module compute_verification."""

from __future__ import annotations

import json
import os
import stat
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system import atomic_file
from ansible.module_utils.kilonova.system.locks import DIRECTORY

ARGUMENT_SPEC: dict[str, Any] = {
    "units": {"type": "list", "elements": "str", "default": []},
    "files": {"type": "list", "elements": "path", "default": []},
    "about": {"type": "dict", "default": {}},
    "seen": {"type": "dict"},
}
STAMP = os.path.join(DIRECTORY, "verified-compute.json")
PACKAGES = "/var/lib/dpkg/status"


def state_of(path: str) -> str:
    """Return time and size of a file as text; of a directory, whose time changes with what is in it, owner and mode."""
    try:
        found = os.stat(path)
    except OSError:
        return "absent"
    if stat.S_ISDIR(found.st_mode):
        return f"{stat.filemode(found.st_mode)} {found.st_uid}:{found.st_gid}"
    return f"{found.st_mtime_ns} {found.st_size}"


def starts(shown: str) -> dict[str, str]:
    """Return the InvocationID of each unit in the output of ``systemctl show``, or its state if it is not active."""
    found = {}
    for block in shown.strip().split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        active = unit.get("ActiveState") == "active"
        if "Id" in unit:
            found[unit["Id"]] = unit.get("InvocationID", "") if active else unit.get("ActiveState", "unknown")
    return found


def look(module: AnsibleModule) -> dict[str, Any]:
    """Return everything that decides whether a guest can run here, as text by name."""
    params = module.params
    found = {f"file {path}": state_of(path) for path in params["files"]} | {"packages": state_of(PACKAGES)}
    if params["units"]:
        command = ["systemctl", "show", "--property=Id,ActiveState,InvocationID", "--", *params["units"]]
        shown = module.run_command(command, check_rc=True, environ_update={"LC_ALL": "C"})[1]
        found |= {f"unit {name}": start for name, start in starts(shown).items()}
    return found | {"about": json.dumps(params["about"], sort_keys=True)}


def read() -> tuple[dict[str, Any], float]:
    """Return the state at the last verification and its time; empty where there is none."""
    try:
        with open(STAMP, encoding="utf-8") as stream:
            kept = json.load(stream)
        return dict(kept["compute"]), float(kept["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}, 0.0


def write(compute: dict[str, Any]) -> None:
    """Record a verification."""
    os.makedirs(DIRECTORY, mode=0o711, exist_ok=True)
    atomic_file.replace(STAMP, json.dumps({"compute": compute, "since": time.time()}))


def run(module: AnsibleModule) -> None:
    if module.params["seen"] is not None:
        if not module.check_mode:
            write(module.params["seen"])
        module.exit_json(changed=False)
    compute = look(module)
    before, since = read()
    different = sorted(name for name in {*compute, *before} if compute.get(name) != before.get(name)) if since else []
    verified = bool(since) and not different
    module.exit_json(changed=False, verified=verified, since=since, different=different, compute=compute)
