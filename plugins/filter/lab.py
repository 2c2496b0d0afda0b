# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters for names and addresses of a lab, so that its inventory is a plain file."""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Callable

from ansible.errors import AnsibleFilterError

LABS_NETWORK = ipaddress.IPv4Network("10.208.0.0/12")
FIRST_MACHINE = 10


def lab_id(project: str, name: str) -> str:
    """Return an identifier of eight hexadecimal digits: names of interfaces have at most 15 characters."""
    text = f"{os.path.realpath(project)}\0{name}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def lab_subnet(identifier: str) -> str:
    """Return the network that belongs to an identifier."""
    number = int(identifier, 16) % 2 ** (24 - LABS_NETWORK.prefixlen)
    return str(ipaddress.IPv4Network((int(LABS_NETWORK.network_address) + number * 256, 24)))


def _network(subnet: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(subnet)
    except ValueError as error:
        raise AnsibleFilterError(f"lab_subnet is {subnet!r}, which is not an IPv4 network: {error}") from error


def lab_address(subnet: str, position: int) -> str:
    """Return the address of the machine at a position in the lab."""
    network = _network(subnet)
    if FIRST_MACHINE + position >= network.num_addresses - 1:
        raise AnsibleFilterError(
            f"The lab's subnet {subnet} has no address for machine {position + 1}; set lab_subnet to a larger network."
        )
    return str(network[FIRST_MACHINE + position])


def lab_gateway(subnet: str) -> str:
    """Return the address of this computer in the lab."""
    return str(_network(subnet)[1])


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., str]]:
        return {"lab_id": lab_id, "lab_subnet": lab_subnet, "lab_address": lab_address, "lab_gateway": lab_gateway}
