#!/usr/bin/python3
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Documentation of the action plugin of the same name, which does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Check a host and its variables, and fail with every problem at once
version_added: "0.1.0"
description:
  - Runs the module preflight_facts on the host and compares the facts with the variables of the host and the groups of
    the inventory.
  - Every variable that the inventory sets is checked against the argument specs of all roles for an unknown or former
    name, a wrong type, a number or an address out of range. Secrets must not be empty, short, or impossible to write to
    a file. Their values are never shown.
  - Refuses to run where secrets that a deployed host uses are missing, and where variables differ that cannot change on
    a deployed cloud.
  - Fails with all problems of the host in one message, each with the variable, its value, why it cannot work and what
    to write instead. Notes, which do not fail, are printed.
options:
  ports:
    description: Ports that must be free, or held by one of their units.
    type: list
    elements: dict
    required: true
    suboptions:
      port:
        description: Port number.
        type: int
        required: true
      protocol:
        description: Transport protocol.
        type: str
        choices: [tcp, udp]
        default: tcp
      groups:
        description: Inventory groups whose hosts need the port.
        type: list
        elements: str
        required: true
      units:
        description: systemd units that may hold the port.
        type: list
        elements: str
        required: true
      purpose:
        description: What needs the port, for the message.
        type: str
        required: true
  minimum_memory_mib:
    description: Memory in MiB that the host must have.
    type: int
    required: true
  minimum_disk_mib:
    description: Free disk in MiB that / and /var must have before the first deployment.
    type: int
    required: true
  minimum_disk_deployed_mib:
    description: Free disk in MiB that / and /var must have once a deployment has begun.
    type: int
    required: true
  maximum_clock_skew:
    description: Seconds by which the host's clock may differ from that of the computer that runs Ansible.
    type: int
    required: true
  paths:
    description: Files and directories to look for on the host; the fact lists those that exist in C(present).
    type: list
    elements: path
    default: []
  directories:
    description: Directories of the host whose files are counted in the fact C(files_in).
    type: list
    elements: path
    default: []
  devices:
    description: Block devices and files to look at; the fact says in C(devices) what each of them is and holds.
    type: list
    elements: path
    default: []
  peers:
    description: TCP sockets that must answer, as C(ADDRESS:PORT); the fact lists others in C(silent_peers).
    type: list
    elements: str
    default: []
  images_are_shared:
    description: Whether all controllers have the same directory of images.
    type: bool
    default: false
  neighbours:
    description: IPv4 addresses of which M(preflight_facts) finds out who has them.
    type: list
    elements: str
    default: []
  known_tags:
    description: Tags that C(--tags) may name.
    type: list
    elements: str
    required: true
  secrets_path:
    description: File of secrets on the computer that runs Ansible, read where the inventory does not have them all.
    type: path
    required: true
  secrets_names:
    description: Variables that are generated where they are missing.
    type: list
    elements: str
    required: true
  secrets_regenerate:
    description: Whether secrets may be generated although the host was deployed with others.
    type: bool
    default: false
attributes:
  check_mode:
    description: Changes nothing in either mode.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
notes:
  - Variables that tasks of the roles set or register are not checked.
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Check the host and its variables
  preflight:
    known_tags: [nova, neutron]
    secrets_path: "{{ secrets_path }}"
    secrets_names: "{{ secrets_names }}"
    ports:
      - {port: 5000, groups: [controller], purpose: Keystone, units: [haproxy.service, keystone.service]}
    minimum_memory_mib: 4608
    minimum_disk_mib: 6144
    minimum_disk_deployed_mib: 512
    maximum_clock_skew: 10
"""

RETURN = r"""
notes:
  description: What works, but slower or differently than expected.
  returned: success
  type: list
  elements: str
  sample: ["The kernel has no openvswitch module: Open vSwitch forwards in user space, which is slower."]
msg:
  description: All problems of the host, one numbered line each.
  returned: failure
  type: str
ansible_facts:
  description: The fact C(preflight_facts), what the module preflight_facts returns as C(facts).
  returned: success
  type: dict
"""
