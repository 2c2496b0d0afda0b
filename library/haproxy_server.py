#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Take a server out of HAProxy, and put it back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_server
short_description: Take a server out of HAProxy, and put it back
version_added: "0.1.0"
description:
  - Asks a running HAProxy by its socket, and changes no file. HAProxy forgets the state when it reloads its
    configuration.
  - A server that is drained gets no new requests. The module waits until those in progress have ended, and goes on when
    some take longer, as consoles do.
  - A server that is ready gets requests as soon as the checks of HAProxy find it up, for which the module waits.
options:
  name:
    description: Name of the server.
    type: str
    required: true
  proxies:
    description: Names of the proxies.
    type: list
    elements: str
    required: true
  state:
    description: Whether the server gets requests.
    type: str
    choices: [drained, ready]
    required: true
  timeout:
    description: Seconds to wait.
    type: float
    default: 60
  socket:
    description: Socket of HAProxy, with the level admin.
    type: path
    default: /run/haproxy/admin.sock
attributes:
  check_mode:
    support: full
    description: Reports in which proxies the state would change.
  diff_mode:
    support: none
notes:
  - Fails where HAProxy does not answer, and where a server that is ready is not up in time.
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Send no requests to a controller
  haproxy_server:
    name: ctl2
    proxies: [keystone, nova]
    state: drained
"""

RETURN = r"""
proxies:
  description: Proxies in which the state changed, or would in check mode.
  returned: success
  type: list
  elements: str
  sample: [keystone, nova]
unfinished:
  description: Proxies in which requests to a drained server are still in progress.
  returned: success
  type: list
  elements: str
  sample: [nova-novncproxy]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.haproxy_server import ARGUMENT_SPEC, run


def main() -> None:
    """Run the module."""
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
