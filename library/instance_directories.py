#!/usr/bin/python3
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: remove directories of guests that are elsewhere."""

from __future__ import annotations

DOCUMENTATION = r"""
module: instance_directories
short_description: Remove what guests with disks in Ceph left on a compute from which they were evacuated
version_added: "0.1.0"
description:
  - When a compute is back from which guests were evacuated, nova-compute removes the guests from libvirt, and leaves
    the directory of each with its console log. Such a guest could never move back, since Nova refuses a live migration
    to a compute that has the directory.
  - Removes directories of guests that libvirt does not know, that hold nothing but a console log, and that have not
    changed since nova-compute started. A disk, and a guest that is being made, are never touched.
options:
  path:
    description: Directory with a directory for each guest.
    type: path
    default: /var/lib/nova/instances
  uri:
    description: Address of libvirt.
    type: str
    default: qemu:///system
attributes:
  check_mode:
    support: full
    description: Lists what would be removed.
  diff_mode:
    support: none
    description: There is nothing to show.
notes:
  - Needs python3-libvirt.
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Remove console logs of guests that were evacuated
  instance_directories:
"""

RETURN = r"""
removed:
  description: The directories.
  returned: always
  type: list
  elements: str
  sample: [/var/lib/nova/instances/2a3f7c7e-6a0c-4c53-b9c4-65c0a2a3a1de]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.libvirt.instance_directories import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
