#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: controller_services
short_description: Remove the services of a controller that is gone
version_added: "0.1.0"
description:
  - Deletes the schedulers and conductors of a host from Nova, and its agents from Neutron, which deletes its chassis
    from OVN. Services that still run would register again.
  - Leaves C(nova-compute) alone, for which there is M(compute_host).
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [openstack_client]
options:
  name:
    description: Name of the host.
    type: str
    required: true
attributes:
  check_mode:
    support: full
    description: Says what would be removed.
  diff_mode:
    support: full
    description: Shows what is removed.
"""

EXAMPLES = r"""
- name: Remove the services of a controller
  controller_services:
    name: ctl3
"""

RETURN = r"""
actions:
  description: What was removed, one line each.
  returned: success
  type: list
  elements: str
  sample: ["ctl3: nova-scheduler removed from Nova"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.controller_services import ARGUMENT_SPEC, run


def main() -> None:
    """Run the module."""
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
