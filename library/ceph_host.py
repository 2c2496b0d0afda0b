#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_host
short_description: Take a storage host out of service, put it back, or remove it from the cluster
version_added: "0.1.0"
description:
  - To be run on another storage host. Refuses what would keep data from being read and written, what would leave
    objects with fewer copies than their pools ask for, and what would leave monitors without a majority.
  - Starts and stops nothing. A dry run refuses what a run would.
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [ceph_cluster]
options:
  name:
    description: Name of the host in the crush map, which is its host name without a domain.
    type: str
    required: true
  monitor:
    description: Name of the monitor and the manager that it has, if it has them.
    type: str
    required: true
  state:
    description:
      - V(maintenance), no copies are made elsewhere while the host is down, which it now may be.
      - V(in_service), waits until everything has its copies, and ends that.
      - V(drained), its OSDs are empty, and nothing is kept on them only.
      - V(absent), the cluster knows neither its OSDs nor its monitor and manager. Their units have been stopped before.
    type: str
    choices: [maintenance, in_service, drained, absent]
    required: true
  timeout:
    description: Seconds to wait for copies.
    type: int
    default: 1800
attributes:
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Let a storage host be down
  ceph_host:
    name: osd2
    monitor: osd2
    state: maintenance
"""

RETURN = r"""
changes:
  description: What changed, one line each.
  returned: always
  type: list
  elements: str
  sample: ["empty osd.3"]
osds:
  description: Numbers of the OSDs that the host had.
  returned: always
  type: list
  elements: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.storage.host import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
