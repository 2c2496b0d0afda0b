#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: check a cloud through its APIs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cloud_health
short_description: Check that all services and agents of a cloud are up, and its images and servers active
version_added: "0.1.0"
description:
  - Checks Keystone (a token), Nova's services (API C(/os-services)), hypervisors, Placement's resource providers,
    Neutron's agents, Glance's images, Nova's servers, and Cinder's services where the catalog has Cinder.
  - Waits up to O(timeout) seconds for what recovers without help, such as the heartbeat of a service that was just
    started, and five seconds if there is something that does not, such as a disabled service. Then fails with all
    problems, each with the part of the cloud that it belongs to, and the last log lines of the units in question that
    run on this host.
  - Changes nothing.
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [openstack_client, healthy_cloud, read_only]
options:
  servers:
    description: Names of servers in the project of O(cloud) that must be ACTIVE.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait until the cloud is healthy.
    type: int
    default: 60
  report_only:
    description: Return problems instead of failing because of them, and do not wait.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Check the cloud
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
  description: The problems; each has layer (a part of the cloud), message, hosts, and passes (whether it may recover).
  returned: always
  type: list
  elements: dict
  sample: [{"layer": "Nova compute", "message": "nova-compute on node2 is down", "hosts": ["node2"], "passes": true}]
needs_you:
  description: The problems that do not pass by themselves, as sentences.
  returned: in check mode, with O(report_only)
  type: list
  elements: str
not_looked_at:
  description: Why the data of images could not be looked at, where their store does not answer.
  returned: in check mode, with O(report_only)
  type: str
layer:
  description: The layer of the first problem.
  returned: on failure
  type: str
services:
  description: Nova's services; binary, host, zone, status (enabled or disabled), disabled_reason, state (up or
    down).
  returned: when Nova answers
  type: list
  elements: dict
volume_services:
  description: >-
    Cinder's services; binary, host, zone, status, disabled_reason, state. The host of cinder-volume names its backend.
    Null where the catalog has no Cinder.
  returned: when Cinder answers, or is not there
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
      number of running servers.
    - The sizes are Placement's inventory and usage.
  returned: when Nova answers
  type: list
  elements: dict
images:
  description: Images; name, id, status, visibility, size in bytes, stores (their names, separated by commas).
  returned: when Glance answers
  type: list
  elements: dict
servers:
  description:
    - Servers of the project, as M(cloud_resources) returns them.
    - Also ports, as Neutron has them (port_id, mac, address), and port_status by port_id.
  returned: when Nova answers
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.cloud_health import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
