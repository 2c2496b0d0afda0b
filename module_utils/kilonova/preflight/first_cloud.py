# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the first server and of the security group rules."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from ansible.module_utils.kilonova.preflight.messages import message

# Of Neutron's names; numbers from 0 to 255 are allowed as well.
# fmt: off
PROTOCOLS = [
    "ah", "any", "dccp", "egp", "esp", "gre", "hopopt", "icmp", "icmpv6", "igmp", "ipip", "ipv6-encap",
    "ipv6-frag", "ipv6-icmp", "ipv6-nonxt", "ipv6-opts", "ipv6-route", "ospf", "pgm", "rsvp", "sctp", "tcp",
    "udp", "udplite", "vrrp",
]
# fmt: on
WITH_TYPES = {"icmp", "icmpv6", "ipv6-icmp", "1", "58"}
WITH_PORTS = {"tcp", "udp", "sctp", "dccp", "udplite", "6", "17", "33", "132", "136"}
RULES = "first_cloud_security_group_rules"


def check_server(server: object, flavor: object, image: object, flavors: object, images: object) -> list[str]:
    """Require the flavor and the image of the first server to be in the inventory."""
    if not server:
        return []
    found = []
    for variable, value, plural, there in (
        ("first_cloud_server_flavor", flavor, "first_cloud_flavors", flavors),
        ("first_cloud_server_image", image, "first_cloud_images", images),
    ):
        if not isinstance(there, list) or not all(isinstance(item, Mapping) for item in there):
            continue  # check_types reports it.
        names = [str(item.get("name")) for item in there]
        if str(value) not in names:
            instead = f"Write one of: {', '.join(names) or 'none'}; or add it to {plural}"
            found.append(message(variable, value, f"{plural} has none of this name", instead))
    return found


def check_rules(rules: object) -> list[str]:
    """Report protocols and ports that Neutron refuses in security group rules."""
    if not isinstance(rules, list):
        return []
    return [
        message(RULES, dict(rule), why, instead)
        for rule in rules
        if isinstance(rule, Mapping)
        for why, instead in rule_problems(rule)
    ]


def rule_problems(rule: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with one rule, and what to write instead."""
    protocol = str(rule.get("protocol", "")).lower()
    number = int(protocol) if protocol.isdigit() else None
    if protocol not in PROTOCOLS and (number is None or number > 255):
        close = difflib.get_close_matches(protocol, PROTOCOLS, n=1) or ["tcp"]
        yield f"there is no protocol {protocol!r}", f"Write protocol: {close[0]}, or one of: {', '.join(PROTOCOLS)}"
        return
    ports = {key: rule[key] for key in ("port_min", "port_max") if rule.get(key) is not None}
    if not ports:
        return
    if protocol not in WITH_PORTS | WITH_TYPES:
        yield f"{protocol} has no ports", f"Remove {' and '.join(ports)}"
        return
    low, high = (0, 255) if protocol in WITH_TYPES else (1, 65535)
    what = "an ICMP type or code" if protocol in WITH_TYPES else "a port"
    bad = [key for key, value in ports.items() if not in_range(value, low, high)]
    for key in bad:
        yield f"{key} is not {what}", f"Write a number from {low} to {high}"
    if bad:
        return
    if "port_min" not in ports:
        yield "port_max is given without port_min", "Write both, or port_min only"
    elif protocol in WITH_PORTS and len(ports) == 2 and int(str(ports["port_min"])) > int(str(ports["port_max"])):
        yield "port_min is greater than port_max", "Write the smaller number as port_min"


def in_range(value: object, low: int, high: int) -> bool:
    """Return whether a value is a whole number within limits."""
    text = str(value)
    return text.isdigit() and low <= int(text) <= high
