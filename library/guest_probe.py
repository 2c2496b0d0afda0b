#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: check a cloud, and from its gateway a guest of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_probe
short_description: Check that a cloud is healthy and that a guest answers, lets its user in and reaches the outside
version_added: "0.1.0"
description:
  - Runs on a host with an address on the guest's network, such as its gateway.
  - Checks the cloud as M(cloud_health) does, with the guest as its server, and the guest at the same time. Problems of
    the cloud take precedence over those of the guest. A guest that failed before the cloud became healthy is checked
    again.
  - Waits for the guest's address to answer a ping through O(interface), looks for the address in the guest's console
    log, logs in over ssh with O(private_key), compares the host name with the one from the metadata service, and lets
    the guest open a TCP connection to the outside, in this order.
  - OVN answers DHCP itself and keeps no lease file. A guest that uses the address that Neutron chose has its lease;
    otherwise the console log shows whether the lease or the route to the guest is missing.
  - Compares the guest's ssh host key with those in its console log. Where the log has none, accepts the key and says so
    in RV(host_key).
  - An action plugin of the same name opens a listener on the control computer for O(outside_listen).
  - Changes nothing.
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [openstack_client, healthy_cloud, read_only]
options:
  server:
    description: Name of the server, in the project of O(cloud).
    type: str
    required: true
  cloud_timeout:
    description: Seconds to wait until the cloud is healthy.
    type: int
    default: 60
  interface:
    description: Interface of this host through which the guest must be reached.
    type: str
    required: true
  user:
    description: User to log in as.
    type: str
    required: true
  private_key:
    description: File on this host with the private key.
    type: path
    required: true
  outside_address:
    description: Outside IPv4 address that the guest must reach over TCP. Empty to skip this check.
    type: str
    default: ""
  outside_port:
    description: TCP port of O(outside_address).
    type: int
    default: 0
  outside_token:
    description: Text that the guest sends. The other side answers with the peer address that it sees.
    type: str
    default: ""
  outside_listen:
    description: >-
      Address of the control computer on which to listen for the guest. The action plugin then sets
      O(outside_address), O(outside_port) and O(outside_token).
    type: str
    default: ""
  outside_peers:
    description: >-
      Addresses that the outside may see as the guest's, which shows that the guest's own address is translated. Empty
      to accept any. Used with O(outside_listen).
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds for the guest to answer the ping, and again for the login.
    type: int
    default: 120
  consoles:
    description:
      - The guest's consoles to open. None by default.
      - Asks Nova for a console address (API C(POST /servers/ID/remote-consoles), microversion 2.6 and later) and uses
        it as a browser does, with an C(Origin) header and the WebSocket subprotocol C(binary).
      - For C(novnc), the page must be noVNC's, and the WebSocket must lead to a VNC session (RFC 6143). For C(serial),
        a line feed sent through the WebSocket must be answered with text.
      - A token that was never issued must be refused. With C(database_socket), so must a valid token after its row in
        C(console_auth_tokens) was set to expired, which has the effect of waiting C([consoleauth]token_ttl). Only the
        row of the token of this call is changed.
      - The tokens appear neither in the result nor in messages.
    type: dict
    suboptions:
      types:
        description: Consoles to check.
        type: list
        elements: str
        default: [novnc]
        choices: [novnc, serial]
      timeout:
        description: Seconds for each console to answer.
        type: int
        default: 20
      ca_file:
        description: Authority that signed the consoles' certificates, for https addresses.
        type: path
      database_socket:
        description: MariaDB's Unix socket on this host, to check that an expired token is refused. Empty to skip this.
        type: str
        default: ""
      database:
        description: Name of the cell database that holds the tokens.
        type: str
        default: nova
requirements:
  - ping, ip and ssh on the host
  - nc, or bash, in the guest for the check of the outside
  - python3-pymysql on the host, for C(database_socket) of O(consoles)
"""

EXAMPLES = r"""
- name: Check the cloud and its guest
  guest_probe:
    server: my_vm
    computes: [node1, node2]
    images: [debian-tiny]
    interface: br0
    user: debian
    private_key: /root/.ssh/kilonova_id_ed25519
    outside_listen: 10.77.0.1
    outside_peers: [10.77.0.2]
    consoles:
      types: [novnc, serial]
      database_socket: /run/mysqld/mysqld.sock
"""

RETURN = r"""
server:
  description: The guest, as an element of RV(servers).
  returned: on success, and when the guest of a healthy cloud fails
  type: dict
services:
  description: As M(cloud_health) returns them, like RV(agents), RV(hypervisors), RV(images) and RV(servers).
  returned: on success
  type: list
  elements: dict
agents:
  description: See RV(services).
  returned: on success
  type: list
  elements: dict
hypervisors:
  description: See RV(services).
  returned: on success
  type: list
  elements: dict
images:
  description: See RV(services).
  returned: on success
  type: list
  elements: dict
servers:
  description: See RV(services).
  returned: on success
  type: list
  elements: dict
address:
  description: The guest's address.
  returned: on success
  type: str
lease_on_console:
  description: Whether the console log shows the address.
  returned: on success
  type: bool
hostname:
  description: The guest's host name.
  returned: on success
  type: str
host_key:
  description: >-
    V(console) when the ssh host key was compared with the console log, V(first seen) when the log had none.
  returned: on success
  type: str
unshelved:
  description: Whether the guest was shelved once, so that its disk is no clone of its image.
  returned: on success
  type: bool
outside_peer:
  description: The address that the outside saw; empty where the check was skipped.
  returned: on success
  type: str
consoles:
  description:
    - The consoles by type; empty without O(consoles). Each has address (without the token), wrong_token_refused and,
      with C(database_socket), expired_token_refused.
    - C(novnc) also has version, width, height (pixels) and name of the screen; C(serial) also has text, the end of the
      guest's output.
  returned: on success
  type: dict
  sample:
    novnc: {address: "https://10.0.0.2:6080/vnc.html", version: "003.008", width: 720, height: 400,
            name: "QEMU (instance-00000001)", wrong_token_refused: true, expired_token_refused: true}
layer:
  description: The part of the cloud that failed; the first of several.
  returned: on failure
  type: str
problems:
  description: As M(cloud_health) returns them.
  returned: when the cloud is not healthy
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.guest_probe import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
