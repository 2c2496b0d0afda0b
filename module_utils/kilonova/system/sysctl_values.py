# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Keep the kernel's values as a sysctl file says.

Documented in library/sysctl_values.py.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

ARGUMENT_SPEC: dict[str, Any] = {"files": {"type": "list", "elements": "path", "required": True}}
KERNEL = Path("/proc/sys")
GLOB = re.compile(r"[*?\[]")


def settings(text: str) -> dict[str, str]:
    """Return {path below /proc/sys: value} of a file as sysctl.d(5) describes it; later lines win."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        name = name.strip().removeprefix("-")
        if not equals or not name or name.startswith(("#", ";")):
            continue
        # The first separator decides which one is used.
        dot, slash = name.find("."), name.find("/")
        if dot >= 0 and (slash < 0 or dot < slash):
            name = name.translate(str.maketrans("./", "/."))
        found[name] = " ".join(value.split())
    return found


def expanded(wanted: dict[str, str]) -> dict[str, str]:
    """Return the values with names in place of patterns; a name that is written out counts more than a pattern."""
    found: dict[str, str] = {}
    for name, value in wanted.items():
        if GLOB.search(name):
            found |= {str(path.relative_to(KERNEL)): value for path in sorted(KERNEL.glob(name))}
    return found | {name: value for name, value in wanted.items() if not GLOB.search(name)}


def run(module: AnsibleModule) -> None:
    """Write the values that differ. Keys that this kernel does not have are left out, as systemd-sysctl does."""
    wanted: dict[str, str] = {}
    for file in module.params["files"]:
        if os.path.exists(file):
            wanted |= settings(Path(file).read_text(encoding="utf-8"))
    wanted = expanded(wanted)
    before, after = {}, {}
    for name, value in wanted.items():
        try:
            now = " ".join((KERNEL / name).read_text(encoding="utf-8").split())
        except OSError:
            continue
        if now == value:
            continue
        before[name], after[name] = now, value
        if not module.check_mode:
            try:
                (KERNEL / name).write_text(value, encoding="utf-8")
            except OSError as error:
                module.fail_json(msg=f"{KERNEL / name} cannot be set to '{value}': {error}")
    module.exit_json(
        changed=bool(after),
        changes=[f"sysctl {name} = {value}" for name, value in after.items()],
        diff={"before": before, "after": after},
    )
