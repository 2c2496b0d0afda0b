#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: keep libvirt's secrets of Ceph."""

from __future__ import annotations

DOCUMENTATION = r"""
module: libvirt_secrets
short_description: Keep the secrets with which libvirt opens disks in Ceph
version_added: "0.1.0"
description:
  - QEMU opens a disk in Ceph with the key in a secret of libvirt. A guest names the secret by its UUID, which is the
    same on all computes, so that guests can move.
  - Defines secrets that are missing, and corrects their value, their usage and how they are kept. A secret of another
    UUID for the same usage is removed, since libvirt has one secret for a usage.
  - Other secrets of libvirt are left alone.
  - The secrets are kept on disk, as files of root, because guests start before anybody could give libvirt the keys
    again (not ephemeral). Who may use libvirt may read them (not private), because Nova reads them, too, and this
    module, to find a wrong one. Whoever may use libvirt can start a guest with any disk, and gains nothing by the key.
options:
  secrets:
    description: The secrets.
    type: list
    elements: dict
    required: true
    suboptions:
      uuid:
        description: UUID of the secret.
        type: str
        required: true
      name:
        description: Its usage, such as the user of Ceph whose key it is.
        type: str
        required: true
      value:
        description: The key in base64, as Ceph writes it. Not needed for V(absent).
        type: str
        default: ""
  state:
    description: V(absent) removes the secrets with these UUIDs.
    type: str
    default: present
    choices: [present, absent]
  uri:
    description: Address of libvirt.
    type: str
    default: qemu:///system
attributes:
  check_mode:
    support: full
    description: Where libvirt is not installed yet, all secrets are predicted.
  diff_mode:
    support: full
    description: Lists what changes, without values.
notes:
  - Needs python3-libvirt.
  - "Format of secrets: https://libvirt.org/formatsecret.html"
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Let guests open their disks in Ceph
  libvirt_secrets:
    secrets:
      - uuid: 7b3c8c0e-5d6c-5b06-9d3c-3d1e5a2f2f10
        name: client.nova
        value: "{{ ceph_client_keys.nova }}"
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode, one sentence each.
  returned: always
  type: list
  elements: str
  sample: ["client.nova (7b3c8c0e-5d6c-5b06-9d3c-3d1e5a2f2f10): defined"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.libvirt.secrets import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
