# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Names and addresses of a lab, computed from where it is so that its inventory needs no program to list it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
name: lab
short_description: Names and addresses of a lab
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - C(lab_id) gives a lab's identifier from the checkout's directory and the lab's name.
  - C(lab_subnet) gives the /24 in 10.208.0.0/12 that belongs to an identifier.
  - C(lab_address) gives the address of the machine with the given position in the lab.
  - C(lab_gateway) gives the address that the computer itself has there.
options:
  _input:
    description: The checkout's directory, the identifier, or the subnet.
    type: str
    required: true
"""

EXAMPLES = r"""
lab_id: "{{ lab_project_directory | lab_id('lab') }}"
lab_subnet: "{{ lab_id | lab_subnet }}"
ansible_host: "{{ lab_subnet | lab_address(groups['lab'].index(inventory_hostname)) }}"
lab_outside_address: "{{ lab_subnet | lab_gateway }}"
"""

RETURN = r"""
_value:
  description: The identifier, subnet or address.
  type: str
"""

import hashlib
import ipaddress
import os
from collections.abc import Callable

from ansible.errors import AnsibleFilterError

LABS_NETWORK = ipaddress.IPv4Network("10.208.0.0/12")
FIRST_MACHINE = 10


def lab_id(project: str, name: str) -> str:
    """Eight hexadecimal digits: short enough for interface names, and different for each checkout and lab."""
    text = f"{os.path.realpath(project)}\0{name}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def lab_subnet(identifier: str) -> str:
    number = int(identifier, 16) % 2 ** (24 - LABS_NETWORK.prefixlen)
    return str(ipaddress.IPv4Network((int(LABS_NETWORK.network_address) + number * 256, 24)))


def _network(subnet: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(subnet)
    except ValueError as error:
        raise AnsibleFilterError(f"lab_subnet is {subnet!r}, which is not an IPv4 network: {error}") from error


def lab_address(subnet: str, position: int) -> str:
    network = _network(subnet)
    if FIRST_MACHINE + position >= network.num_addresses - 1:
        raise AnsibleFilterError(
            f"The lab's subnet {subnet} has no address for machine {position + 1}; set lab_subnet to a larger network."
        )
    return str(network[FIRST_MACHINE + position])


def lab_gateway(subnet: str) -> str:
    return str(_network(subnet)[1])


class FilterModule:
    def filters(self) -> dict[str, Callable[..., str]]:
        return {"lab_id": lab_id, "lab_subnet": lab_subnet, "lab_address": lab_address, "lab_gateway": lab_gateway}
