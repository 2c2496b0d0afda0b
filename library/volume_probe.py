#!/usr/bin/python3
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: check that a volume of an image is a clone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_probe
short_description: Make a volume of an image, and check in Ceph that it is a clone
version_added: "0.1.0"
description:
  - Cinder makes a volume in any case, and copies the image through the controller where it cannot clone it. Only Ceph
    says which it was, so it is asked for the parent of the volume, with the key of Cinder.
  - Fails where the volume is not made, where Ceph does not answer, and where the volume is a copy, with the last log
    lines of the units in question.
  - The volume is removed at the end. One that a killed run has left is removed at the start.
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [openstack_client]
options:
  image:
    description: Name of a raw image in the store.
    type: str
    required: true
  pool:
    description: Pool of volumes.
    type: str
    required: true
  parent_pool:
    description: Pool of images.
    type: str
    required: true
  user:
    description: Name of the user of Ceph, without C(client.).
    type: str
    default: cinder
  timeout:
    description: Seconds to wait until the volume is there, and until it is gone.
    type: int
    default: 120
attributes:
  check_mode:
    support: full
    description: Does the same; nothing that it makes stays.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Check that volumes are clones
  volume_probe:
    image: debian-tiny
    pool: volumes
    parent_pool: images
"""

RETURN = r"""
parent:
  description: What the volume was a clone of.
  returned: success
  type: str
  sample: images/0b1a6c3e-57f0-4f4c-9f0c-1f2f5a3a9f6d
seconds:
  description: How long it took to make it.
  returned: success
  type: float
  sample: 1.9
layer:
  description: The part of the cloud to blame.
  returned: on failure
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.volume_probe import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
