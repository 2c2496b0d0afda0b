#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Cache the packages that lab machines have downloaded."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: lab_packages
short_description: Cache the packages that lab machines have downloaded
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - Links complete packages in C(/var/cache/apt/archives) of the lab machines into
    C(/var/cache/kilonova/lab/packages), from which M(lab_machine) fills new machines.
  - Needs no lock, because apt renames a download to its final name only when it is complete.
options:
  lab_id:
    description: Identifier of the lab, eight hexadecimal digits.
    type: str
    required: true
attributes:
  check_mode: {support: full, description: Changes nothing.}
  diff_mode: {support: none, description: The number of packages is in the result.}
"""

EXAMPLES = r"""
- name: Cache downloaded packages
  lab_packages:
    lab_id: 1a2b3c4d
"""

RETURN = r"""
added:
  description: Number of packages added.
  returned: success
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.lab.computer import LabError, lab_directory, require_root
from ansible.module_utils.kilonova.lab.image import collect_packages
from ansible.module_utils.kilonova.lab.lifecycle import archives


def main() -> None:
    module = AnsibleModule(argument_spec={"lab_id": {"type": "str", "required": True}}, supports_check_mode=True)
    added = 0
    try:
        require_root()
        if not module.check_mode:
            machines = lab_directory(module.params["lab_id"]) / "machines"
            added = sum(collect_packages(archives(path)) for path in machines.glob("*"))
    except LabError as error:
        module.fail_json(msg=str(error))
    # No host of the play changes, only the cache of this computer.
    module.exit_json(changed=False, added=added)


if __name__ == "__main__":
    main()
