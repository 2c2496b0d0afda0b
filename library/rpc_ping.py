#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: ask services over RabbitMQ whether they are at work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rpc_ping
short_description: Ask services over RabbitMQ whether they are at work
version_added: "0.1.0"
description:
  - Calls each server (a service on a host) over RabbitMQ, all at the same time, and fails with those that do not answer
    within O(timeout) seconds, and with the last log lines of those on this host.
  - A service that has lost its queue, or whose threads are stuck, may go on sending heartbeats, and is up for the APIs.
  - Uses the account and certificates of a service, from its configuration file. Run it as root.
  - Changes nothing, except for a queue for the answers, which RabbitMQ removes when the module ends or expires.
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [read_only]
requirements: [python3-oslo.messaging on the host]
options:
  servers:
    description: The servers to ask.
    type: list
    elements: dict
    required: true
    suboptions:
      topic:
        description: Its topic, such as C(conductor).
        type: str
        required: true
      server:
        description: Its name below the topic, as a rule that of its host.
        type: str
        required: true
      host:
        description: The host that it runs on; empty if one of several may answer.
        type: str
        default: ""
      unit:
        description: Its systemd unit.
        type: str
        required: true
      layer:
        description: The layer of the cloud that it belongs to, such as C(Nova conductor).
        type: str
        required: true
  exchange:
    description: Their exchange, the C(control_exchange) of the service.
    type: str
    required: true
  config:
    description: Configuration file with the transport to ask them by.
    type: path
    required: true
  timeout:
    description: Seconds to wait for an answer.
    type: int
    default: 20
notes:
  - "Services answer with C([DEFAULT] rpc_ping_enabled), from oslo.messaging:
    https://docs.openstack.org/oslo.messaging/latest/configuration/opts.html"
"""

EXAMPLES = r"""
- name: Check that services answer
  rpc_ping:
    servers:
      - topic: conductor
        server: ctl1
        host: ctl1
        unit: nova-conductor
        layer: Nova conductor
    exchange: nova
    config: /etc/nova/nova.conf
"""

RETURN = r"""
asked:
  description: Number of servers that answered.
  returned: success
  type: int
problems:
  description: Servers that did not answer; each has layer, message, hosts, and passes (false).
  returned: always
  type: list
  elements: dict
layer:
  description: The layer of the first one.
  returned: on failure
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.rpc_ping import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
