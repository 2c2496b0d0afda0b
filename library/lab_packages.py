#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Keep what lab machines have downloaded."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: lab_packages
short_description: Add the packages that a lab's machines have downloaded to the shared cache
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - Links the complete packages in C(/var/cache/apt/archives) of each of the lab's machines into
    C(/var/cache/kilonova/lab/packages), from where M(lab_machine) gives them to new machines.
  - Needs no lock and disturbs no apt, since a download becomes visible there under its final name only when complete.
options:
  lab_id:
    description: The lab's identifier, eight hexadecimal digits.
    type: str
    required: true
attributes:
  check_mode: {support: full, description: Counts nothing and changes nothing.}
  diff_mode: {support: none, description: The number of packages is in the result.}
"""

EXAMPLES = r"""
- name: Keep the downloaded packages for the next machine
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


def main() -> None:
    module = AnsibleModule(argument_spec={"lab_id": {"type": "str", "required": True}}, supports_check_mode=True)
    added = 0
    try:
        require_root()
        if not module.check_mode:
            machines = lab_directory(module.params["lab_id"]) / "machines"
            added = sum(collect_packages(path) for path in machines.glob("*/root/var/cache/apt/archives"))
    except LabError as error:
        module.fail_json(msg=str(error))
    # The cache is this computer's own business: a host in the play is not changed by it.
    module.exit_json(changed=False, added=added)


if __name__ == "__main__":
    main()
