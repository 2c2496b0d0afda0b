#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: sysctl_values
short_description: Keep the values of the running kernel as sysctl files say
version_added: "0.1.0"
description:
  - Compares the values in C(/proc/sys) with files as sysctl.d(5) describes them, and writes those that differ. The
    files are loaded at boot only; this finds what was changed afterwards.
  - A pattern stands for all names that match and are not written out themselves.
  - Ignores files that do not exist and keys that the kernel does not have.
author: The Kilonova authors (@kilonova)
options:
  files:
    description: Absolute paths of the files. Where two have the same key, the later one counts.
    type: list
    elements: path
    required: true
attributes:
  check_mode:
    support: full
    description: Predicts the changes.
  diff_mode:
    support: full
    description: Shows the values that differ.
notes:
  - Fails if the kernel refuses a value.
  - "Form of the files: https://www.freedesktop.org/software/systemd/man/latest/sysctl.d.html"
"""

EXAMPLES = r"""
- name: Keep the kernel's values
  sysctl_values:
    files: [/etc/sysctl.d/60-kilonova-bridge.conf]
"""

RETURN = r"""
changes:
  description: Values that changed, one line each.
  returned: always
  type: list
  elements: str
  sample: ["sysctl net/ipv4/ip_forward = 1"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.sysctl_values import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
