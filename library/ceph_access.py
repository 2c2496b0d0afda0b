#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_access
short_description: Check that a Ceph cluster can be used with given keys
version_added: "0.1.0"
description:
  - Connects to the monitors of a cluster that something else operates as each client, and checks the identifier of the
    cluster, its release, that pools are there, and that the client may do what its service does. Fails with all
    problems.
  - Nothing is written. That a client may write is seen by how the cluster refuses to remove an object that does not
    exist, and that it may break the locks of a dead host by how it refuses to block an address that is none.
  - Keys are given to the library of Ceph, and are in no file and no argument of a program.
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [read_only]
options:
  fsid:
    description: Identifier of the cluster.
    type: str
    required: true
  monitors:
    description: Addresses of monitors.
    type: list
    elements: str
    required: true
  port:
    description: Port of the monitors, for the second version of the protocol.
    type: int
    default: 3300
  clients:
    description: Clients with what they need.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name, without C(client.).
        type: str
        required: true
      key:
        description: Its key in base64.
        type: str
        required: true
      writes:
        description: Pools that it reads and writes.
        type: list
        elements: str
        default: []
      reads:
        description: Pools that it reads.
        type: list
        elements: str
        default: []
  oldest_release:
    description: Number of the oldest release that will do.
    type: int
    default: 16
  timeout:
    description: Seconds to wait for monitors and OSDs.
    type: int
    default: 15
requirements:
  - python3-rados
"""

EXAMPLES = r"""
- name: Check the cluster of others
  ceph_access:
    fsid: 5b3e6f52-5d2a-4f0e-9d1b-6f8c9f1c2d3e
    monitors: [192.0.2.71]
    clients:
      - {name: nova, key: "{{ ceph_client_keys.nova }}", writes: [vms], reads: [images]}
"""

RETURN = r"""
release:
  description: Release of the monitors.
  returned: success
  type: str
  sample: ceph version 18.2.7 reef (stable)
problems:
  description: What does not work.
  returned: on failure
  type: list
  elements: str
not_looked_at:
  description: Why a dry run could not look.
  returned: in check mode, where the library of Ceph is not installed yet
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.storage.access import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
