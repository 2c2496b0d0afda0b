#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: the state of a cloud as its APIs tell it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cloud_health
short_description: See whether all services and agents of a cloud are up, and its images and servers there
version_added: "0.1.0"
description:
  - Looks at Keystone (a token), Nova's services (API C(/os-services)), hypervisors, Placement's resource providers,
    Neutron's agents, Glance's images and Nova's servers.
  - Waits up to O(timeout) seconds for what converges by itself, such as the heartbeat of a service that has just been
    started. What is still wrong then is listed as a whole, each with the part of the cloud it belongs to, followed by
    the last log lines of the units in question, as far as they run on this host.
  - Changes nothing.
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [openstack_client, read_only]
options:
  computes:
    description: Names, as Nova knows them, of the hosts that have to be up as hypervisors.
    type: list
    elements: str
    default: []
  images:
    description: Names of images that have to be active.
    type: list
    elements: str
    default: []
  servers:
    description: Names of servers in the project of O(cloud) that have to be ACTIVE.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait for heartbeats.
    type: int
    default: 60
  report_only:
    description: Whether to succeed whatever is found, and not to wait.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: See whether the cloud is healthy
  cloud_health:
    computes: [node1, node2]
    images: [debian-tiny]
    servers: [my_vm]

- name: Get the state for a report
  cloud_health:
    report_only: true
"""

RETURN = r"""
problems:
  description: What is wrong; each has layer (a part of the cloud), message and hosts (the hosts it is about).
  returned: always
  type: list
  elements: dict
  sample: [{"layer": "Nova compute", "message": "nova-compute on node2 is down", "hosts": ["node2"]}]
services:
  description: Nova's services; binary, host, zone, status (enabled or disabled), state (up or down).
  returned: when Nova answers
  type: list
  elements: dict
agents:
  description: Neutron's agents; type, binary, host, alive, enabled.
  returned: when Neutron answers
  type: list
  elements: dict
hypervisors:
  description:
    - Nova's hypervisors; name, host, type, state, status, address, vcpus, vcpus_used, ram and ram_used in MiB, and the
      number of servers that run.
    - The numbers are Placement's inventory and usage.
  returned: when Nova answers
  type: list
  elements: dict
images:
  description: Images; name, id, status, visibility, size in bytes.
  returned: when Glance answers
  type: list
  elements: dict
servers:
  description:
    - Servers of the project, in the shape in which C(cloud_resources) returns them.
    - Also ports, as Neutron has them (port_id, mac, address), and port_status by port_id.
  returned: when Nova answers
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.api import CloudApi
from ansible.module_utils.kilonova.cloud.client import CLIENT_ARGUMENTS, connect
from ansible.module_utils.kilonova.cloud.health import Unhealthy, healthy, look


def main() -> None:
    names = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            **CLIENT_ARGUMENTS,
            "computes": names,
            "images": names,
            "servers": names,
            "timeout": {"type": "int", "default": 60},
            "report_only": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    api = CloudApi(connect(module))
    wanted = params["computes"], params["images"], params["servers"]
    if params["report_only"]:
        state, problems = look(api, *wanted)
        module.exit_json(changed=False, problems=problems, **state)
    try:
        state, _ = healthy(api, *wanted, params["timeout"])
    except Unhealthy as error:
        module.fail_json(msg=str(error), problems=error.problems, layer=error.layer)
    module.exit_json(changed=False, problems=[], **state)


if __name__ == "__main__":
    main()
