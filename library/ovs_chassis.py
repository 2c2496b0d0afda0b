#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

DOCUMENTATION = r"""
module: ovs_chassis
short_description: Join a host to OVN through its Open vSwitch database
version_added: "0.1.0"
description:
  - Sets external IDs of the Open_vSwitch record, which ovn-controller reads, the connections of the database server,
    and bridges with their ports.
  - Reads the present state first and applies all differences in one C(ovs-vsctl) transaction, so a host is never half
    joined. External IDs, bridges and ports that are not listed do not change.
options:
  external_ids:
    description:
      - Keys of C(external_ids) in the Open_vSwitch record with their values. An empty value removes the key.
      - "Keys that OVN reads: https://www.ovn.org/support/dist-docs/ovn-controller.8.html"
    type: dict
    default: {}
  managers:
    description: All connections that the database accepts or makes, as C(ovs-vsctl set-manager) writes them.
    type: list
    elements: str
  ssl:
    description:
      - Files of this host that ovn-controller uses for an C(ovn-remote) that begins with C(ssl:). It reads them again
        when they change.
    type: dict
    suboptions:
      private_key:
        description: Absolute path of the private key.
        type: path
        required: true
      certificate:
        description: Absolute path of the certificate.
        type: path
        required: true
      ca_cert:
        description: Absolute path of the certificate of the authority of the southbound database.
        type: path
        required: true
  bridges:
    description: Bridges to create, change or remove.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the bridge.
        type: str
        required: true
      datapath_type:
        description: V(system) for the datapath in the kernel, V(netdev) for the one in user space.
        type: str
        choices: [system, netdev]
        default: system
      ports:
        description: Host interfaces that must be ports of the bridge.
        type: list
        elements: str
        default: []
      exclusive:
        description: Whether ports that are not listed are removed from the bridge.
        type: bool
        default: false
      state:
        description: Whether the bridge exists. V(absent) ignores the other options.
        type: str
        choices: [present, absent]
        default: present
attributes:
  check_mode:
    support: full
    description: If Open vSwitch is not installed yet, predicts that everything changes.
  diff_mode:
    support: full
    description: Shows settings that differ.
notes:
  - The message of a failure has the error of C(ovs-vsctl) and the last log lines of ovsdb-server and ovs-vswitchd.
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Join this host to OVN
  ovs_chassis:
    external_ids:
      ovn-remote: ssl:10.0.0.11:16642
      ovn-encap-type: geneve
      ovn-encap-ip: 10.0.0.21
      ovn-bridge-mappings: physnet1:br-provider
    ssl:
      private_key: /etc/ovn/chassis.pem
      certificate: /etc/ovn/chassis.pem
      ca_cert: /etc/ovn/ca-cert.pem
    bridges:
      - name: br-provider
        ports: [ovs-br0]
"""

RETURN = r"""
changes:
  description: Settings that changed, one line each.
  returned: always
  type: list
  elements: str
  sample: ["external-ids:ovn-encap-ip = 10.0.0.21"]
not_looked_at:
  description: Why a dry run could not read the database of an installed Open vSwitch. RV(ignore:changed) is then false.
  returned: in check mode, if ovsdb-server does not answer
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.network.ovs_chassis import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
