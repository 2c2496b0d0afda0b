#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_monitor
short_description: Make the store of a Ceph monitor
version_added: "0.1.0"
description:
  - Does nothing where the store exists. Where a quorum of monitors answers, the new monitor joins it when it starts.
  - Otherwise it becomes the first one of a new cluster, if it is the O(founder) and O(data) proves that no storage host
    has anything of a cluster. A cluster that is down as a whole is not taken for one that does not exist.
  - The store is made beside its place and renamed, so that a run that is killed leaves none that is not complete.
author: The Kilonova authors (@kilonova)
options:
  name:
    description: Name of the monitor.
    type: str
    required: true
  fsid:
    description: Identifier of the cluster.
    type: str
    required: true
  address:
    description: Address and port on which it listens, such as C([v2:192.0.2.10:3300]).
    type: str
    required: true
  keyring:
    description: Keyring with the keys of C(mon.) and of the administrator.
    type: str
    required: true
  founder:
    description: Whether it may be the first one of a new cluster.
    type: bool
    default: false
  data:
    description: >-
      What of a cluster each storage host of the inventory has, a list by host. Null for a host that was not looked at.
    type: dict
    required: true
attributes:
  check_mode:
    support: full
    description: Predicts that the store is made.
  diff_mode:
    support: none
    description: There is nothing to show.
notes:
  - Starts nothing.
"""

EXAMPLES = r"""
- name: Make the store of the monitor
  ceph_monitor:
    name: osd1
    fsid: 5b3e6f52-5d2a-4f0e-9d1b-6f8c9f1c2d3e
    address: "[v2:192.0.2.31:3300]"
    keyring: "{{ ceph_mon_keyring }}"
    founder: true
    data: {osd1: [], osd2: [], osd3: []}
"""

RETURN = r"""
changes:
  description: What was made, one line.
  returned: always
  type: list
  elements: str
  sample: ["make the monitor osd1, the first one of a new cluster"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.storage.monitor import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
