#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Take a server out of HAProxy, and put it back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_server
short_description: Take servers out of HAProxy, and put them back
version_added: "0.1.0"
description:
  - Asks a running HAProxy by its socket, and changes no file. HAProxy forgets the state when it reloads its
    configuration.
  - A server that is drained gets no new requests. The module waits until those in progress have ended, and goes on when
    some take longer, as consoles do.
  - A server that is ready gets requests as soon as the checks of HAProxy find it up, for which the module waits. One
    that answers them with 404, as a controller in maintenance does, gets none, and is not waited for.
options:
  names:
    description: Names of the servers.
    type: list
    elements: str
    required: true
  proxies:
    description: Names of the proxies.
    type: list
    elements: str
    required: true
  state:
    description: >-
      Whether the servers get requests. V(idle) and V(serving) tell HAProxy nothing, and wait until the health of the
      servers has brought it about. V(checked) lets HAProxy forget what it knows of their health, and waits until new
      checks find them up. A service that restarts may accept connections that it answers late, which checks take for a
      server that is up until they time out.
    type: str
    choices: [drained, ready, idle, serving, checked]
    required: true
  timeout:
    description: Seconds to wait; V(0) does not wait, and accepts servers that are not up.
    type: float
    default: 60
  socket:
    description: Socket of HAProxy, with the level admin.
    type: path
    default: /run/haproxy/admin.sock
attributes:
  check_mode:
    support: full
    description: Reports of which servers the state would change, of none where HAProxy does not run.
  diff_mode:
    support: none
notes:
  - Fails where HAProxy does not answer, where a server that is to get requests is not up in time, and where one that is
    to be idle still gets new ones.
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Send no requests to a controller
  haproxy_server:
    names: [ctl2]
    proxies: [keystone, nova]
    state: drained
"""

RETURN = r"""
servers:
  description: Servers of which the state changed, or would in check mode, after their proxies.
  returned: success
  type: list
  elements: str
  sample: [keystone/ctl2, nova/ctl2]
changes:
  description: The same, one line each.
  returned: success
  type: list
  elements: str
  sample: ["haproxy: keystone/ctl2 ready"]
unfinished:
  description: Servers to which requests are still in progress that should have none, or that are not up.
  returned: success
  type: list
  elements: str
  sample: [nova-novncproxy/ctl2]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.haproxy_server import ARGUMENT_SPEC, run


def main() -> None:
    """Run the module."""
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
