#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_pools
short_description: Keep settings, crush rule, pools and keys of a Ceph cluster as wanted
version_added: "0.1.0"
description:
  - Reads all of them from the monitors, and changes what differs.
  - Nothing is deleted, and no pool gets fewer copies of its objects than it has. Where the parameters want fewer,
    RV(needs_you) says so.
  - A dry run before Ceph is on the host predicts everything.
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [ceph_cluster]
options:
  monitor:
    description: Name of a monitor to wait for until it is in the quorum.
    type: str
    default: ""
  options:
    description: "Options in the configuration database of the monitors: C({section {option value}})."
    type: dict
    default: {}
  min_compat_client:
    description: Name of the oldest release whose clients may connect, such as C(nautilus). A newer one stays.
    type: str
    default: ""
  rule:
    description: The crush rule of the pools, which spreads copies over hosts or OSDs of the root C(default).
    type: dict
    suboptions:
      name:
        description: Name of the rule. A rule of this name is left as it is.
        type: str
        required: true
      failure_domain:
        description: What holds at most one copy of an object.
        type: str
        choices: [osd, host]
        required: true
  pools:
    description: Replicated pools, with an autoscaled number of placement groups.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the pool.
        type: str
        required: true
      size:
        description: Copies of each object. With 1, the failure of a disk loses data.
        type: int
        required: true
      min_size:
        description: Copies that there must be for clients to read and write.
        type: int
        required: true
      application:
        description: What uses the pool.
        type: str
        default: rbd
      create:
        description: Whether it is made where it does not exist.
        type: bool
        default: true
  entities:
    description: Daemons and clients with their keys.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name, such as C(client.glance).
        type: str
        required: true
      key:
        description: The key, in base64.
        type: str
        required: true
      caps:
        description: What it may do, by the kind of daemon that it asks.
        type: dict
        required: true
  timeout:
    description: Seconds to wait for a quorum.
    type: int
    default: 120
attributes:
  diff_mode:
    support: full
    description: Keys are not shown.
"""

EXAMPLES = r"""
- name: Keep pools and keys
  ceph_pools:
    rule: {name: replicated-host, failure_domain: host}
    pools:
      - {name: images, size: 3, min_size: 2}
    entities:
      - name: client.glance
        key: "{{ ceph_client_keys.glance }}"
        caps: {mon: profile rbd, osd: profile rbd pool=images, mgr: profile rbd pool=images}
"""

RETURN = r"""
changes:
  description: What changed, one line each.
  returned: always
  type: list
  elements: str
  sample: ["Ceph: pool images: size 3", "Ceph: client.glance (caps)"]
needs_you:
  description: Differences that only an operator may decide on.
  returned: if there are any
  type: list
  elements: str
not_looked_at:
  description: Why a dry run could not compare. RV(ignore:changed) is then false.
  returned: in check mode, if no quorum answers
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.storage.pools import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
