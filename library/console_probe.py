#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: look at a server's consoles as a browser does."""

from __future__ import annotations

DOCUMENTATION = r"""
module: console_probe
short_description: Open a server's consoles with a token, and see wrong tokens refused
version_added: "0.1.0"
description:
  - Asks Nova for a console address (API C(POST /servers/ID/remote-consoles), microversion 2.6 and later) and uses it
    as a browser does, with an C(Origin) header and the WebSocket subprotocol C(binary).
  - For C(novnc) the page has to come and to be noVNC's, and the WebSocket has to lead into a VNC session (RFC 6143) up
    to the screen's name.
  - For C(serial) the WebSocket has to open, and a line feed typed into it has to yield some text.
  - A token that was never issued must lead nowhere. With O(database_socket), neither must the token that worked a
    moment before, once its row in C(console_auth_tokens) says that it expired. Nova's proxies accept tokens whose
    C(expires) is in the future (nova/objects/console_auth_token.py); setting the row back does what waiting
    C([consoleauth]token_ttl) does. Only the row of this module's own token is touched, and it is useless afterwards.
  - The tokens appear neither in the result nor in messages.
author: The Kilonova authors (@kilonova)
options:
  cloud:
    description: Name of the cloud in O(clouds_file).
    type: str
    default: admin
  clouds_file:
    description: Path of the clouds.yaml file with the credentials.
    type: path
    default: /etc/openstack/clouds.yaml
  api_timeout:
    description: Seconds to wait for Keystone to answer.
    type: int
    default: 120
  server:
    description: Identifier of the server.
    type: str
    required: true
  types:
    description: Consoles to look at.
    type: list
    elements: str
    default: [novnc]
    choices: [novnc, serial]
  timeout:
    description: Seconds for each console to answer.
    type: int
    default: 20
  ca_file:
    description: File with the certificate of the authority that signed the consoles' certificates, for https addresses.
    type: path
  database_socket:
    description:
      - MariaDB's Unix socket on this host, where root may log in without a password. Empty to leave out the check of an
        expired token.
    type: str
    default: ""
  database:
    description: Name of the cell database that holds the tokens.
    type: str
    default: nova
requirements:
  - python3-openstacksdk on the host
  - python3-pymysql on the host, for O(database_socket)
attributes:
  check_mode:
    support: full
    description: Does the same; it changes nothing of the cloud's.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Look at the consoles
  console_probe:
    server: 1ca6bbcd-5f9d-4e1d-9d14-954c2e40cc7e
    types: [novnc, serial]
    database_socket: /run/mysqld/mysqld.sock
"""

RETURN = r"""
consoles:
  description:
    - What was seen, by console type. All have address (without the token), wrong_token_refused and, with
      O(database_socket), expired_token_refused.
    - C(novnc) also has version, width, height (pixels) and name of the screen; C(serial) also has text, the end of what
      the guest said.
  returned: success
  type: dict
  sample:
    novnc: {address: "http://10.0.0.2:6080/vnc_auto.html", version: "003.008", width: 720, height: 400,
            name: "QEMU (instance-00000001)", wrong_token_refused: true, expired_token_refused: true}
layer:
  description: The part of the cloud that failed.
  returned: failure
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cloud_api import CloudApi, CloudError, layer_logs
from ansible.module_utils.consoles import CONSOLE_ARGUMENTS, ConsoleError, probe_all
from ansible.module_utils.openstack_client import CLIENT_ARGUMENTS, connect


def main() -> None:
    module = AnsibleModule(
        argument_spec={**CLIENT_ARGUMENTS, **CONSOLE_ARGUMENTS, "server": {"type": "str", "required": True}},
        supports_check_mode=True,
    )
    try:
        consoles = probe_all(
            CloudApi(connect(module)), module.params["server"], module.params, module.no_log_values.add
        )
    except (CloudError, ConsoleError) as error:
        module.fail_json(msg=f"{error.layer}: {error}\n{layer_logs([error.layer])}", layer=error.layer)
    module.exit_json(changed=False, consoles=consoles)


if __name__ == "__main__":
    main()
