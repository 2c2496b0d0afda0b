# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of IPv4 ranges: the flat network, its gateway, and what they overlap."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from ansible.module_utils.kilonova.preflight.messages import Facts, message

# The gateway, the DHCP and metadata port, and one guest.
SMALLEST_NETWORK = 3


def network_of(text: object) -> ipaddress.IPv4Network | None:
    """Return an IPv4 network in CIDR form, None for anything else."""
    try:
        return ipaddress.IPv4Network(str(text)) if "/" in str(text) else None
    except ValueError:
        return None


def check_fixed_range(fixed_range: object, network_size: object) -> list[str]:
    """Check the range of the flat network and how many of its addresses are used."""
    text = str(fixed_range)
    try:
        network = ipaddress.IPv4Network(text, strict=False)
        if "/" not in text:
            raise ValueError("the prefix length is missing")
    except ValueError as error:
        why = f"this is not an IPv4 network in CIDR form ({error})"
        return [message("fixed_range", text, why, "Write a network such as 192.168.1.0/24")]
    if text.partition("/")[0] != str(network.network_address):
        why = f"the address has host bits set, {network} is the network that it is in"
        return [message("fixed_range", text, why, f"Write {network}")]
    if (
        network.is_loopback
        or network.is_multicast
        or network.is_link_local
        or network.is_unspecified
        or network.is_reserved
    ):
        return [
            message(
                "fixed_range",
                text,
                "guests cannot use addresses of that kind",
                "Write a private network such as 192.168.1.0/24",
            )
        ]
    usable = max(network.num_addresses - 2, 0)
    if usable < SMALLEST_NETWORK:
        why = f"it has {usable} usable addresses, and a gateway, DHCP and a guest need {SMALLEST_NETWORK}"
        return [message("fixed_range", text, why, "Write a larger network such as 192.168.1.0/24")]
    try:
        size = int(str(network_size))
    except ValueError:
        return []  # check_types reports it.
    if size < SMALLEST_NETWORK:
        why = f"a gateway, DHCP and a guest need {SMALLEST_NETWORK} addresses"
        return [message("network_size", size, why, f"Write a number from {SMALLEST_NETWORK} to {usable}")]
    if size > usable:
        fitting = 32 - (size + 1).bit_length()
        larger = f"{network.network_address}/{fitting}"
        enough = ipaddress.IPv4Network(larger, strict=False)
        why = f"fixed_range = {text} has only {usable} usable addresses"
        return [message("network_size", size, why, f"Write {usable} or less, or a larger fixed_range such as {enough}")]
    return []


def check_fixed_gateway(fixed_gateway: str, fixed_range: object) -> list[str]:
    """Check the address of the router of the site, if there is one."""
    network = network_of(fixed_range)
    if not fixed_gateway or network is None:
        return []
    example = next(network.hosts(), network.network_address)
    instead = f"Write the address of the router in {network}, such as {example}, or '' if the site has none there"
    variable = "fixed_gateway"
    try:
        address = ipaddress.IPv4Address(fixed_gateway)
    except ValueError:
        return [message(variable, fixed_gateway, "this is not an IPv4 address", instead)]
    if address not in network:
        return [message(variable, fixed_gateway, f"this address is outside fixed_range = {network}", instead)]
    for special, name in ((network.network_address, "network"), (network.broadcast_address, "broadcast")):
        if address == special:
            return [message(variable, fixed_gateway, f"this is the {name} address of fixed_range = {network}", instead)]
    return []


def free_network(prefix: int, taken: Iterable[ipaddress.IPv4Network]) -> str:
    """Return a private network of that prefix length that overlaps no other, for a message."""
    others = list(taken)
    for pool in ("192.168.0.0/16", "10.0.0.0/8", "172.16.0.0/12"):
        base = ipaddress.IPv4Network(pool)
        for count, network in enumerate(base.subnets(new_prefix=max(prefix, base.prefixlen))):
            if count and not any(network.overlaps(other) for other in others):
                return str(network)
            if count > 1024:
                break
    return "another private network"


def check_host_networks(facts: Facts, fixed_range: object, bridge: str, management_address: str) -> list[str]:
    """Report networks of the host that the flat network overlaps, except for the gateway address on the bridge."""
    network = network_of(fixed_range)
    if network is None or network.num_addresses < SMALLEST_NETWORK:
        return []
    ours = f"{next(network.hosts())}/{network.prefixlen}"
    found = []
    others: list[tuple[str, str, ipaddress.IPv4Network]] = []
    for name, interface in facts["interfaces"].items():
        for cidr in interface["addresses"]:
            if ":" not in cidr and not (name == bridge and cidr == ours):
                others.append((name, cidr, ipaddress.IPv4Interface(cidr).network))
    for name, cidr, other in others:
        if other.overlaps(network):
            of = "the management network" if cidr.partition("/")[0] == management_address else "a network"
            why = f"it overlaps {of} {other} that this host is in ({cidr} on {name})"
            instead = (
                "Write a network that nothing else uses, such as "
                f"{free_network(network.prefixlen, [o for _, _, o in others])}"
            )
            found.append(message("fixed_range", fixed_range, why, instead))
    return found


def check_ranges(ranges: Mapping[str, object]) -> list[str]:
    """Report ranges {variable: CIDR} that overlap each other; other checks report what is not a network."""
    parsed = [(name, network) for name, value in sorted(ranges.items()) if (network := network_of(value)) is not None]
    found = []
    for index, (name, network) in enumerate(parsed):
        for other_name, other in parsed[index + 1 :]:
            if network.overlaps(other):
                instead = (
                    f"Write a network such as {free_network(network.prefixlen, [n for _, n in parsed])} in one "
                    "of the two"
                )
                found.append(message(name, str(network), f"it overlaps {other_name} = {other}", instead))
    return found
