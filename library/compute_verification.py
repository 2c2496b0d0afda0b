#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: whether a compute is what it was when a guest was last seen to run on it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compute_verification
short_description: Remember that a guest was seen to run on a compute, and see whether that still says anything
version_added: "0.1.0"
description:
  - Looks at what decides whether a guest runs here, and compares it with what it was when a guest was last seen to run.
    Until one of them is another, nothing is to be learned from a further guest.
  - "Looked at: the start of each of O(units) (systemd's C(InvocationID), another one after each start), time and size
    of each of O(files), what dpkg has installed (the time of C(/var/lib/dpkg/status)), and O(about)."
  - What was remembered is in C(/run/kilonova), and gone after a boot.
  - Never reports a change, since what it remembers is of no use to anything but itself.
author: The Kilonova authors (@kilonova)
options:
  units:
    description: Units that have to run without having been started again.
    type: list
    elements: str
    default: []
  files:
    description: Paths that must not have been written. One that does not exist must still not exist.
    type: list
    elements: path
    default: []
  about:
    description: Anything else that must be the same, such as what the guest was made of.
    type: dict
    default: {}
  seen:
    description: >-
      Remember that a guest was seen to run on the compute as it was then. Takes RV(compute) of a call that was made
      before the guest was booted, so that what changes meanwhile is not taken for verified.
    type: dict
attributes:
  check_mode:
    support: full
    description: Remembers nothing.
  diff_mode:
    support: none
    description: There is nothing to show.
notes:
  - C(InvocationID) is described in systemd.exec(5) and shown by systemctl(1) of systemd 232 and later.
"""

EXAMPLES = r"""
- name: See whether something changed since a guest was seen to run
  compute_verification:
    units: [nova-compute.service, ovn-controller.service]
    files: [/etc/nova/nova.conf]
  register: found

- name: Boot a guest and look at it
  ansible.builtin.include_tasks: probe.yml
  when: not found.verified

- name: Remember that it ran
  compute_verification:
    seen: "{{ found.compute }}"
  when: not found.verified
"""

RETURN = r"""
verified:
  description: Whether a guest was seen to run and nothing is another since.
  returned: without O(seen)
  type: bool
since:
  description: When it was seen, in seconds since 1970; 0 where it was not.
  returned: without O(seen)
  type: float
different:
  description: What is another than it was then; empty where no guest was seen.
  returned: without O(seen)
  type: list
  elements: str
  sample: [unit nova-compute.service, packages]
compute:
  description: What was found, as O(seen) takes it.
  returned: without O(seen)
  type: dict
"""

import json
import os
import tempfile
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.locks import DIRECTORY

STAMP = os.path.join(DIRECTORY, "verified-compute.json")
PACKAGES = "/var/lib/dpkg/status"


def state_of(path: str) -> str:
    """Time and size of what is at a path, in a form that is another one after each change."""
    try:
        found = os.stat(path)
    except OSError:
        return "absent"
    return f"{found.st_mtime_ns} {found.st_size}"


def starts(shown: str) -> dict[str, str]:
    """The start of each unit in what ``systemctl show`` printed; what does not run has a state instead."""
    found = {}
    for block in shown.strip().split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        runs = unit.get("ActiveState") == "active"
        if "Id" in unit:
            found[unit["Id"]] = unit.get("InvocationID", "") if runs else unit.get("ActiveState", "unknown")
    return found


def look(module: AnsibleModule) -> dict[str, Any]:
    """What decides whether a guest runs here, as text by name."""
    params = module.params
    found = {f"file {path}": state_of(path) for path in params["files"]} | {"packages": state_of(PACKAGES)}
    if params["units"]:
        command = ["systemctl", "show", "--property=Id,ActiveState,InvocationID", "--", *params["units"]]
        shown = module.run_command(command, check_rc=True, environ_update={"LC_ALL": "C"})[1]
        found |= {f"unit {name}": start for name, start in starts(shown).items()}
    return found | {"about": json.dumps(params["about"], sort_keys=True)}


def read() -> tuple[dict[str, Any], float]:
    """What was remembered, and when; nothing where that cannot be read."""
    try:
        with open(STAMP, encoding="utf-8") as stream:
            kept = json.load(stream)
        return dict(kept["compute"]), float(kept["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}, 0.0


def remember(compute: dict[str, Any]) -> None:
    """Replaced in one step, so that nobody reads half of it."""
    os.makedirs(DIRECTORY, mode=0o711, exist_ok=True)
    descriptor, path = tempfile.mkstemp(dir=DIRECTORY)
    with open(descriptor, "w", encoding="utf-8") as stream:
        json.dump({"compute": compute, "since": time.time()}, stream)
    os.replace(path, STAMP)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "path", "default": []},
            "about": {"type": "dict", "default": {}},
            "seen": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    if module.params["seen"] is not None:
        if not module.check_mode:
            remember(module.params["seen"])
        module.exit_json(changed=False)
    compute = look(module)
    before, since = read()
    different = sorted(name for name in {*compute, *before} if compute.get(name) != before.get(name)) if since else []
    verified = bool(since) and not different
    module.exit_json(changed=False, verified=verified, since=since, different=different, compute=compute)


if __name__ == "__main__":
    main()
