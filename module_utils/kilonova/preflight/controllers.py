# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of what several controllers need: a majority, an address that moves, and images that all of them can read."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence

from ansible.module_utils.kilonova.preflight.interfaces import ipv4
from ansible.module_utils.kilonova.preflight.messages import Facts, message

MOST = 7
VARIABLE = "cloud_api_address"


def check_number(controllers: Sequence[str]) -> list[str]:
    """Require a number of controllers of which one more dead host never leaves half."""
    count = len(controllers)
    if count % 2 and count <= MOST:
        return []
    why = (
        "their databases need more than half of them, so that an even number survives no more failures than one less"
        if count % 2 == 0
        else f"each change has to reach more than half of them; more than {MOST} make that slow"
    )
    return [
        f"The group controller has {count} hosts ({', '.join(controllers)}): {why}. Write 1, or an odd number of hosts "
        f"up to {MOST}, into it."
    ]


def check_address(facts: Facts, address: str, management: str, hosts: Collection[str]) -> list[str]:
    """Require an address for the APIs that no host has as its own, in the network of the management addresses.

    hosts: management addresses of all controllers.
    """
    networks = [
        ipaddress.IPv4Interface(cidr).network
        for interface in facts["interfaces"].values()
        for cidr in ipv4(interface)
        if cidr.partition("/")[0] == management
    ]
    where = f"in {networks[0]}" if networks else "in the network of the management addresses"
    instead = f"Write a free address {where}, the same for all hosts: in group_vars/all"
    try:
        parsed = ipaddress.IPv4Address(address)
    except ValueError:
        why = "the controllers need an IPv4 address that one of them holds at a time, and another takes over"
        return [message(VARIABLE, address, why, instead)]
    if address in hosts:
        why = "this is the address of one controller, and with several, the APIs need one that can move to another"
        return [message(VARIABLE, address, why, instead)]
    if networks and parsed not in networks[0]:
        why = f"it is outside of {networks[0]}, where this controller has {management}"
        return [message(VARIABLE, address, why, instead)]
    fixed = [
        f"{cidr} on {name}"
        for name, interface in facts["interfaces"].items()
        for cidr in ipv4(interface)
        if cidr.partition("/")[0] == address and not cidr.endswith("/32")
    ]
    if fixed:
        why = f"this controller has it as its own ({fixed[0]}), and would keep it when it moves to another"
        instead = f"Remove it from the host's network configuration and interface; then: ip address add {address}/32"
        return [message(VARIABLE, address, why, instead)]
    # check_own_address of cloud_management_address reports a host without it.
    return []


def check_former(addresses: Sequence[str]) -> list[str]:
    """Require that the APIs have one address, which moves."""
    if not addresses:
        return []
    why = "several controllers serve the APIs at one address, which moves from one to another"
    instead = "Remove it once clients know cloud_api_address, before you add controllers"
    return [message("haproxy_former_addresses", ", ".join(addresses), why, instead)]


def check_images(path: str, shared: bool, ceph: bool) -> list[str]:
    """Require images that the Glance of each controller can read."""
    if shared or ceph:
        return []
    why = (
        f"each controller would have its own images in {path}, and the others could not read them. Several controllers "
        "need a store that they share"
    )
    instead = (
        "Add a group storage or ceph_existing (docs/operate/storage.md), or mount one directory of the site there on "
        "all controllers and write true"
    )
    return [message("glance_store_shared", shared, why, instead)]
