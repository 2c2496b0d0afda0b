# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the addresses and the interface of tunnels between hosts."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from ansible.module_utils.kilonova.preflight.interfaces import choices, ipv4
from ansible.module_utils.kilonova.preflight.messages import Facts, message
from ansible.module_utils.kilonova.preflight.networks import SMALLEST_NETWORK


def check_tunnel(facts: Facts, address: str, interface: str, bridges: Iterable[str], hosts: int) -> list[str]:
    """Check the address on a bridge of Open vSwitch, which tunnels in user space need. The first bridge gets it."""
    variable, own = "ovn_chassis_bridge_address", list(bridges)
    instead = "Write an address with prefix length in a network for tunnels only, such as 10.78.0.14/24"
    if not address:
        if interface:
            why = f"tunnels over ovn_chassis_tunnel_interface = {interface} end at this address on {own[0]}"
        elif facts["ovs_kernel"] or hosts < 2:
            return []
        else:
            why = (
                "the kernel of this host has no openvswitch module, and Open vSwitch in user space can send the "
                f"packets of tunnels to other hosts only from an address on {own[0]}"
            )
        return [message(variable, address, why, f"{instead}, a different one for each host")]
    try:
        parsed = ipaddress.IPv4Interface(address)
    except ValueError as error:
        return [message(variable, address, f"this is not an IPv4 address with prefix length ({error})", instead)]
    if "/" not in address or parsed.network.num_addresses < SMALLEST_NETWORK:
        return [message(variable, address, "other hosts' addresses must be in the same network", instead)]
    for name, other in facts["interfaces"].items():
        # check_tunnel_interface reports addresses of the tunnel interface.
        if name in (*own, interface):
            continue
        for cidr in ipv4(other):
            if ipaddress.IPv4Interface(cidr).network.overlaps(parsed.network):
                why = f"{name} is in that network already, with {cidr}"
                return [message(variable, address, why, instead)]
    return []


def check_tunnel_interface(facts: Facts, name: str, flat_interface: str) -> list[str]:
    """Require an interface that can become the port of a bridge for tunnels only."""
    variable = "ovn_chassis_tunnel_interface"
    if not name:
        return []
    addressed = [other for other, its in facts["interfaces"].items() if ipv4(its)]
    free = f"Leave it out, or write one of: {choices(facts, (flat_interface, *addressed))}"
    interface = facts["interfaces"].get(name)
    if interface is None:
        return [message(variable, name, "this host has no interface of that name", free)]
    if name == flat_interface:
        why = "this is flat_interface, over which tunnels go when this is left out"
        return [message(variable, name, why, "Leave it out")]
    # With the kernel datapath, ports of Open vSwitch have this master.
    if interface["master"] not in ("", "ovs-system"):
        return [message(variable, name, f"that interface is part of {interface['master']}", free)]
    if interface["kind"] in ("wireless", "loopback", "bridge"):
        why = f"a {interface['kind']} interface cannot be a port of a bridge of Open vSwitch"
        return [message(variable, name, why, free)]
    taken = ipv4(interface)
    if taken:
        why = f"it has the address {taken[0]}, which no longer works once the interface is a port of a bridge"
        instead = (
            f"If it is for tunnels only, remove the address of {name} from /etc/network/interfaces and write it in "
            "ovn_chassis_bridge_address"
        )
        if facts["ovs_kernel"]:
            instead += f". Otherwise leave this out, and set ovn_chassis_tunnel_address to {taken[0].partition('/')[0]}"
        return [message(variable, name, why, instead)]
    return []


def check_tunnel_address(facts: Facts, address: str, bridge_address: str, management: str, hosts: int) -> list[str]:
    """Require a tunnel address that the host has, unless another check covers it."""
    variable = "ovn_chassis_tunnel_address"
    ours = bridge_address.partition("/")[0]
    if address == (ours or management):
        return []
    if ours and not facts["ovs_kernel"] and hosts > 1:
        why = (
            "the kernel of this host has no openvswitch module, and Open vSwitch in user space can send the packets of "
            f"tunnels from ovn_chassis_bridge_address = {bridge_address} only"
        )
        return [message(variable, address, why, "Leave it out")]
    have = [
        cidr.partition("/")[0]
        for interface in facts["interfaces"].values()
        if interface["kind"] != "loopback"
        for cidr in ipv4(interface)
    ]
    if address in have:
        return []
    instead = f"Leave it out, or write one of: {', '.join(have) or 'none found'}"
    return [message(variable, address, "this host does not have that address", instead)]
