#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: unit_check
short_description: Find the systemd units of a host that do not run as wanted
version_added: "0.1.0"
description:
  - Finds units that failed, are masked, stopped, missing or restarting over and over, or that would not start at boot.
    Returns for each the reason, the command that mends it, and the end of its log.
  - Asks sockets for their certificates. A unit whose certificate ends in less than 7 days, or is not of the expected
    authority, counts as broken.
  - Of HAProxy, also finds servers that somebody took out at run time (C(MAINT), C(DRAIN)).
  - Takes a fraction of a second where all units run. Units that are starting are waited for.
  - Fails for none of these; RV(broken) says what it found.
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [read_only]
options:
  units:
    description: The units, as the filter P(titled_units#filter) makes them of service maps.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the unit. Without a suffix, a service.
        type: str
        required: true
      title:
        description: What it belongs to, such as V(Nova).
        type: str
        required: true
      state:
        description: Whether it has to run. V(stopped) units are not looked at.
        type: str
        choices: [started, stopped]
        default: started
      enabled:
        description: Whether it has to start at boot. By default, that does not matter.
        type: bool
  certificates:
    description: The sockets that serve TLS, as the filter P(served_certificates#filter) makes them of service maps.
    type: list
    elements: dict
    default: []
    suboptions:
      title:
        description: What is served, such as V(the APIs).
        type: str
        required: true
      unit:
        description: Full name of the unit that serves it, one of O(units).
        type: str
        required: true
      address:
        description: Address or name to connect to.
        type: str
        required: true
      port:
        description: Port to connect to.
        type: int
        required: true
      authority:
        description: Path of the certificate of the authority, in PEM form.
        type: path
        required: true
      certificate:
        description: Path of a certificate for servers that want one of their clients.
        type: path
      key:
        description: Path of the key of O(certificates[].certificate).
        type: path
      farewell:
        description: What lets the server end the connection, in hexadecimal, where it logs an error when a client does.
        type: str
  addresses:
    description: IPv4 addresses that one of several hosts is to have. C(held) says which of them this host has.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait for units that are starting, if others are broken or one of them died repeatedly.
    type: float
    default: 10
  start_timeout:
    description: >-
      Seconds to wait for units that are starting, if nothing else is wrong. One that runs but does not listen gets at
      most 60 s, the time that RabbitMQ takes on a busy host to come back to its cluster.
    type: float
    default: 120
  lines:
    description: How many lines of each log.
    type: int
    default: 10
  maintenance:
    description: A file that is there while the host is in maintenance.
    type: path
  haproxy_socket:
    description: Path of HAProxy's statistics socket, read if C(haproxy.service) is one of the units.
    type: path
    default: /run/haproxy/admin.sock
notes:
  - "Statistics of HAProxy: https://docs.haproxy.org/3.0/management.html#9.1"
  - Needs systemd 247 or newer, for C(systemctl show --timestamp=us+utc).
"""

EXAMPLES = r"""
- name: Check units
  unit_check:
    units: "{{ cloud_services_here | titled_units }}"
  register: result
"""

RETURN = r"""
host:
  description: Host name.
  returned: always
  type: str
broken:
  description: The units that do not run as wanted.
  returned: always
  type: list
  elements: dict
  contains:
    unit: {description: The unit., type: str}
    title: {description: What it belongs to., type: str}
    reason: {description: "What is wrong, such as V(is masked).", type: str}
    command: {description: The command that mends it., type: str}
    log: {description: The last lines of its journal and log files., type: str}
foreign:
  description: The servers in RV(broken) that were taken out of HAProxy at run time, and O(maintenance), as sentences.
  returned: always
  type: list
  elements: str
certificates:
  description: How long the certificates that sockets serve are valid.
  returned: always
  type: list
  elements: dict
  contains:
    title: {description: What is served., type: str}
    days: {description: Whole days that are left., type: int}
held:
  description: Those of O(addresses) that the host has.
  returned: success
  type: list
  elements: str
  sample: [192.0.2.10]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.unit_check import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
