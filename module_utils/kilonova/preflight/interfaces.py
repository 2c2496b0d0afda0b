# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the interfaces, the bridge and the management address of a host."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.kilonova.preflight.messages import Facts, message

INTERFACE_NAME_LENGTH = 15
# br0 becomes br0-ovs and ovs-br0.
BRIDGE_NAME_LENGTH = INTERFACE_NAME_LENGTH - len("-ovs")


def ipv4(interface: Mapping[str, Any]) -> list[str]:
    """Return the IPv4 addresses of an interface, with prefix length."""
    return [cidr for cidr in interface["addresses"] if ":" not in cidr]


def choices(facts: Facts, without: Iterable[str] = ()) -> str:
    """List the interfaces that can be named, the one with the default route first."""
    virtual = re.compile(r"-ovs$|^(ovs-|br-|tap|veth|vnet|virbr|kilonova-)")
    names = [
        name
        for name, interface in facts["interfaces"].items()
        if interface["kind"] not in ("loopback", "bridge") and not virtual.search(name) and name not in without
    ]
    names.sort(key=lambda name: (name != facts["default_interface"], name))
    return ", ".join(names) or "none found"


def check_flat_interface(facts: Facts, flat_interface: str, bridge: str) -> list[str]:
    """Require an interface that can become a port of the bridge."""
    interface = facts["interfaces"].get(flat_interface)
    if interface is None:
        why = "this host has no interface of that name"
        return [message("flat_interface", flat_interface, why, f"Write one of: {choices(facts)}")]
    if interface["master"] not in ("", bridge):
        why = f"that interface is part of {interface['master']}"
        instead = (
            f"Write {interface['master']} if that is a bond, one of: {choices(facts)}, or set "
            f"flat_network_bridge to {interface['master']}"
        )
        return [message("flat_interface", flat_interface, why, instead)]
    if interface["kind"] in ("wireless", "loopback"):
        why = f"a {interface['kind']} interface cannot be a port of a bridge"
        return [message("flat_interface", flat_interface, why, f"Write one of: {choices(facts)}")]
    return []


def check_public_interface(facts: Facts, public_interface: str, flat_interface: str, bridge: str) -> list[str]:
    """Require an existing interface for the guests' way out."""
    if public_interface in (flat_interface, bridge) or public_interface in facts["interfaces"]:
        return []
    why = "this host has no interface of that name"
    return [message("public_interface", public_interface, why, f"Leave it out, or write one of: {choices(facts)}")]


def check_way_out(facts: Facts, public_interface: str, flat_interface: str, bridge: str, serves: bool) -> list[str]:
    """Require the default route to leave by public_interface, the only interface with SNAT."""
    way, flat = facts["default_interface"], (flat_interface, bridge)
    if not serves or not way or public_interface == way or (public_interface in flat and way in flat):
        return []
    why = f"this host's default route leaves by {way}, where guests get no SNAT"
    return [message("public_interface", public_interface, why, f"Leave it out, or write {way}")]


def check_bridge_name(facts: Facts, bridge: str, flat_interface: str) -> list[str]:
    """Check the name of the bridge, which the names of its veth pair contain."""
    variable = "flat_network_bridge"
    if not re.match(r"^[A-Za-z0-9][A-Za-z0-9_-]*$", bridge):
        why = "a bridge's name consists of letters, digits, - and _, and starts with a letter or digit"
        return [message(variable, bridge, why, "Write a name such as br0")]
    if len(bridge) > BRIDGE_NAME_LENGTH:
        why = (
            f"{bridge}-ovs and ovs-{bridge}, the veth pair to Open vSwitch, have {len(bridge) + 4} characters, "
            "and an interface's name has "
            f"at most {INTERFACE_NAME_LENGTH}"
        )
        return [message(variable, bridge, why, f"Write a name of at most {BRIDGE_NAME_LENGTH} characters, such as br0")]
    if bridge == flat_interface:
        return [
            message(
                variable,
                bridge,
                "the bridge cannot have the name of its port, flat_interface",
                "Write another name, such as br0",
            )
        ]
    existing = facts["interfaces"].get(bridge)
    if existing and existing["kind"] != "bridge":
        return [
            message(
                variable,
                bridge,
                "this host has an interface of that name that is no bridge",
                "Write a name that is free, such as br0",
            )
        ]
    return []


def check_own_address(facts: Facts, variable: str, address: str) -> list[str]:
    """Require an IPv4 address of this host that others can reach."""
    own = [
        (name, cidr.partition("/")[0])
        for name, interface in facts["interfaces"].items()
        for cidr in interface["addresses"]
        if ":" not in cidr and interface["kind"] != "loopback"
    ]
    own.sort(key=lambda pair: pair[0] != facts["default_interface"])
    listed = ", ".join(f"{ip} ({name})" for name, ip in own) or "it has none yet"
    instead = f"Write one of this host's addresses in its host variables: {listed}"
    try:
        parsed = ipaddress.IPv4Address(address)
    except ValueError:
        kind = (
            "an IPv6 address, and an IPv4 address is needed"
            if ":" in address
            else "not an IPv4 address; services need an address, not a name"
        )
        return [message(variable, address, f"this is {kind}", instead)]
    if parsed.is_loopback:
        return [message(variable, address, "other hosts cannot reach a loopback address", instead)]
    if address not in [ip for _, ip in own]:
        return [message(variable, address, "this host does not have that address", instead)]
    return []
