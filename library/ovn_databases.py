#!/usr/bin/python3
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: ovn_databases
short_description: Keep on which addresses OVN's databases listen, for whom, and with which certificates
version_added: "0.1.0"
description:
  - Sets the tables C(Connection) and C(SSL) of OVN's databases on this host, through their unix sockets. The servers
    act on them at once. Connections to an address that stays are not interrupted.
  - Reads first, and applies all differences of a database in one transaction.
author: The Kilonova authors (@kilonova)
options:
  databases:
    description: The databases.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Which database.
        type: str
        choices: [northbound, southbound]
        required: true
      connections:
        description: All connections that the database accepts. Others are closed.
        type: list
        elements: dict
        required: true
        suboptions:
          target:
            description: Protocol, port and address, as C(ovn-sbctl set-connection) takes them.
            type: str
            required: true
          role:
            description: >-
              Role that limits what clients may write, such as V(ovn-controller): what concerns the chassis whose name
              is the common name of their certificate. Empty for everything.
            type: str
            default: ""
      private_key:
        description: Absolute path of the private key of the server.
        type: path
        required: true
      certificate:
        description: Absolute path of its certificate.
        type: path
        required: true
      ca_cert:
        description: Absolute path of the certificates of the authorities whose clients it accepts.
        type: path
        required: true
  timeout:
    description: Seconds to wait for a database, which may be starting. A dry run asks once.
    type: int
    default: 60
attributes:
  check_mode:
    support: full
    description: Before OVN is installed, predicts that everything changes.
  diff_mode:
    support: none
    description: RV(changes) says what differs.
notes:
  - The message of a failure has the error of C(ovn-nbctl) or C(ovn-sbctl) and the last log lines of the server.
"""

EXAMPLES = r"""
- name: Serve chassis with TLS
  ovn_databases:
    databases:
      - name: southbound
        connections:
          - target: pssl:16642:10.0.0.11
            role: ovn-controller
        private_key: /etc/ovn/server.pem
        certificate: /etc/ovn/server.pem
        ca_cert: /etc/ovn/clients.pem
"""

RETURN = r"""
changes:
  description: What changed, one line each.
  returned: always
  type: list
  elements: str
  sample: ["OVN southbound: pssl:16642:10.0.0.11 for ovn-controller"]
not_looked_at:
  description: Why a dry run could not read a database. RV(ignore:changed) is then false.
  returned: in check mode, if a server does not answer
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.network.ovn_databases import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
