# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Remove what guests left on a compute from which they were evacuated. The logic of the module instance_directories."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.libvirt.domains import connect
from ansible.module_utils.kilonova.system.systemctl import Systemctl
from ansible.module_utils.kilonova.system.units import Unit

ARGUMENT_SPEC: dict[str, Any] = {
    "path": {"type": "path", "default": "/var/lib/nova/instances"},
    "uri": {"type": "str", "default": "qemu:///system"},
}
# Not those of a resize, which end in _resize.
GUEST = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CONSOLE_LOG = re.compile(r"console\.log(\.\d+)?")


def left_over(path: str, known: Collection[str], since: float) -> list[str]:
    """Return directories of guests that libvirt does not know, with nothing but a log, older than a time."""
    found = []
    for entry in os.scandir(path) if os.path.isdir(path) else ():
        if not GUEST.fullmatch(entry.name) or entry.name in known or not entry.is_dir(follow_symlinks=False):
            continue
        with os.scandir(entry.path) as inside:
            files = list(inside)
        plain = all(CONSOLE_LOG.fullmatch(one.name) and one.is_file(follow_symlinks=False) for one in files)
        changed = max(one.stat(follow_symlinks=False).st_mtime for one in (entry, *files))
        if plain and changed < since:
            found.append(entry.path)
    return sorted(found)


def run(module: AnsibleModule) -> None:
    """Look and remove."""
    _, connection = connect(module, module.params["uri"])
    known = {domain.UUIDString() for domain in connection.listAllDomains()}
    unit = Unit("nova-compute.service", "started", None, None, [], [])
    Systemctl(module).read([unit])
    found = left_over(module.params["path"], known, unit.since) if unit.running else []
    for path in [] if module.check_mode else found:
        shutil.rmtree(path)
    module.exit_json(changed=bool(found), removed=found)
