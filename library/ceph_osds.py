#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_osds
short_description: Bring the OSDs of a host to what is wanted
version_added: "0.1.0"
description:
  - Makes the OSDs that are missing, in sparse files or with C(ceph-volume lvm) on empty block devices, lets their units
    run, and waits until the cluster says that they are up.
  - Refuses to make one on anything that holds data, and to make one anew that has been in the cluster and whose data
    are gone. Nothing is done on the host while one of its OSDs is refused.
  - Deletes nothing that has ever been up. What a dry run would refuse is in RV(needs_you).
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [ceph_cluster]
options:
  host:
    description: Name of the host, for messages.
    type: str
    required: true
  osds:
    description: The OSDs, as the filter C(ceph_osds) makes them.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Path of the block device, or of the file.
        type: path
        required: true
      size:
        description: Size of the file, such as C(20G). Empty for a block device.
        type: str
        default: ""
      uuid:
        description: Identifier of the OSD.
        type: str
        required: true
      key:
        description: Key of an OSD in a file, in base64. C(ceph-volume) makes those of block devices.
        type: str
        required: true
  reads:
    description: Files that OSDs read when they start. One that is newer restarts them.
    type: list
    elements: path
    default: []
  careful:
    description: Whether a restart waits until other OSDs hold enough copies of everything.
    type: bool
    default: true
  pending:
    description: Files that a dry run would change, as C(config_files) returns them.
    type: list
    elements: path
    default: []
  timeout:
    description: Seconds to wait for a quorum, for permission to restart, and for OSDs to be up.
    type: int
    default: 300
attributes:
  diff_mode:
    support: full
requirements:
  - for block devices, the key of C(client.bootstrap-osd)
"""

EXAMPLES = r"""
- name: Make and start OSDs
  ceph_osds:
    host: osd1
    osds: "{{ ['/dev/disk/by-id/wwn-0x5000c500a1b2c3d4'] | ceph_osds(ceph_fsid, 'osd1', ceph_seed) }}"
    reads: [/etc/ceph/ceph.conf]
"""

RETURN = r"""
changes:
  description: What was done, one line each.
  returned: always
  type: list
  elements: str
  sample: ["make an OSD on /dev/sdb", "start ceph-osd@0.service"]
foreign:
  description: OSDs with directories on this host that are not wanted.
  returned: always
  type: list
  elements: str
needs_you:
  description: What is refused, with what to do.
  returned: in check mode, if something is
  type: list
  elements: str
not_looked_at:
  description: Why a dry run could not compare. RV(ignore:changed) is then false.
  returned: in check mode, if no quorum answers
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.storage.osds import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
