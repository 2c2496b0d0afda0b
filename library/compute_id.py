#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: keep the identifier under which Nova knows a compute."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compute_id
short_description: Keep the identifier under which Nova knows a compute
version_added: "0.1.0"
description:
  - The identifier in O(file) makes a compute the owner of its guests and of its resource provider. Once the compute is
    known, nova-compute does not start with another one, nor without the file.
  - Writes a random identifier before nova-compute starts for the first time, and a copy to O(record). Restores O(file)
    from the copy if it is gone.
  - Makes the copy for computes that lack it.
  - Does not decide which of two different identifiers is right, and makes no new one for a compute that ran before.
    Fails then, and says what to do.
author: The Kilonova authors (@kilonova)
options:
  file:
    description: The file of nova-compute.
    type: path
    default: /var/lib/nova/compute_id
  record:
    description: The copy. Empty for a compute that has left the cloud, which then gets a new identifier.
    type: path
    default: /var/lib/kilonova/compute_id
  owner:
    description: User and group that own O(file).
    type: str
    default: nova
  log:
    description: The log of nova-compute. Where it is not empty, the compute ran before.
    type: path
    default: /var/log/nova/nova-compute.log
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    description: Shows the identifier in each file that is written.
notes:
  - "How Nova uses the file: https://docs.openstack.org/nova/latest/admin/compute-node-identification.html"
"""

EXAMPLES = r"""
- name: Keep the identifier of the compute
  compute_id:

- name: Prepare the host for a new identifier, after it left the cloud
  ansible.builtin.copy:
    dest: /var/lib/kilonova/compute_id
    content: ""
    mode: "0644"
"""

RETURN = r"""
compute_id:
  description: The identifier; empty where none was found and none may be made.
  returned: success
  type: str
  sample: 2d0c2f2a-8a3f-4f8e-9b7e-1f6a3f6d1f10
needs_you:
  description: What an operator has to decide, as sentences.
  returned: in check mode
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.compute_id import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
