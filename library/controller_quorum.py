#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: controller_quorum
short_description: Ask whether the other controllers can do without one
version_added: "0.1.0"
description:
  - Run on another controller. Asks MariaDB, RabbitMQ, OVN's databases and HAProxy whether those that are left would be
    more than half of the members, and whether each proxy has a server that is up elsewhere.
  - Counts controllers in maintenance as away.
  - Fails with one line for each engine that cannot do without the controller.
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [read_only]
options:
  name:
    description: Name of the controller in O(members).
    type: str
    required: true
  members:
    description: Names of all controllers.
    type: list
    elements: str
    required: true
  nodes:
    description: Their RabbitMQ nodes, in the order of O(members).
    type: list
    elements: str
    required: true
  northbound:
    description: Addresses of their members of OVN's northbound database, in the same order.
    type: list
    elements: str
    required: true
  southbound:
    description: The same of the southbound database.
    type: list
    elements: str
    required: true
  proxies:
    description: Names of the proxies whose servers have the names of controllers.
    type: list
    elements: str
    default: []
  socket:
    description: Socket of HAProxy.
    type: path
    default: /run/haproxy/admin.sock
  timeout:
    description: >-
      Seconds to wait until all can do without it, for members that have just come back. A dry run asks once.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Ask whether the others can do without the controller
  controller_quorum:
    name: ctl3
    members: [ctl1, ctl2, ctl3]
    nodes: [rabbit@ctl1, rabbit@ctl2, rabbit@ctl3]
    northbound: ["ssl:10.0.0.11:6643", "ssl:10.0.0.12:6643", "ssl:10.0.0.13:6643"]
    southbound: ["ssl:10.0.0.11:6644", "ssl:10.0.0.12:6644", "ssl:10.0.0.13:6644"]
    proxies: [keystone, nova]
  delegate_to: ctl1
"""

RETURN = r"""
problems:
  description: What speaks against it, one line for each engine.
  returned: always
  type: list
  elements: str
  sample: ["RabbitMQ: of 3 nodes, only rabbit@ctl1 would be running"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.controller_quorum import ARGUMENT_SPEC, run


def main() -> None:
    """Run the module."""
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
