# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Keep the identifier under which Nova knows a compute.

Documented in library/compute_id.py.
"""

from __future__ import annotations

import os
import uuid
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system import atomic_file

ARGUMENT_SPEC: dict[str, Any] = {
    "file": {"type": "path", "default": "/var/lib/nova/compute_id"},
    "record": {"type": "path", "default": "/var/lib/kilonova/compute_id"},
    "owner": {"type": "str", "default": "nova"},
    "log": {"type": "path", "default": "/var/log/nova/nova-compute.log"},
}


def read(path: str) -> str | None:
    """Return the identifier in a file; None without the file."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read().strip()
    except FileNotFoundError:
        return None


def ran(log: str) -> bool:
    """Return whether nova-compute has started on this host."""
    return os.path.exists(log) and os.path.getsize(log) > 0


def problem_of(params: dict[str, Any], now: str | None, recorded: str | None) -> str:
    """Return what an operator has to decide; empty for nothing."""
    file, record = params["file"], params["record"]
    if now and recorded and now != recorded:
        return (
            f"{file} holds {now}, and this compute was deployed as {recorded}: nova-compute does not start under "
            f"another identifier. Write {recorded} to {file}; or, if the compute was removed from the cloud, make "
            f"{record} an empty file."
        )
    if not now and recorded is None and ran(params["log"]):
        return (
            f"{file} is gone, and nothing on this host has a copy: nova-compute does not start under a new identifier. "
            "Write the ID that 'openstack hypervisor list' shows for this host to the file; or, if the compute was "
            f"removed from the cloud, make {record} an empty file."
        )
    return ""


def run(module: AnsibleModule) -> None:
    """Make, copy or restore the identifier."""
    params = module.params
    file, record = params["file"], params["record"]
    now, recorded = read(file), read(record)
    if problem := problem_of(params, now, recorded):
        if not module.check_mode:
            module.fail_json(msg=problem)
        module.exit_json(changed=False, compute_id=now or "", needs_you=[problem])
    identifier = now or recorded or str(uuid.uuid4())
    outdated = [path for path, text in ((record, recorded), (file, now)) if text != identifier]
    if not module.check_mode:
        for path in outdated:
            # On the disk at once: after a power cut, an empty record would stand for a new compute.
            atomic_file.replace(path, identifier, mode=0o644, owner=params["owner"] if path == file else "root")
    module.exit_json(
        changed=bool(outdated),
        compute_id=identifier,
        needs_you=[],
        diff=[
            {"before": "", "after": f"{identifier}\n", "before_header": path, "after_header": path} for path in outdated
        ],
    )
