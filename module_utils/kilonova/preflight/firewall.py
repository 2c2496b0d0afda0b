# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the addresses and ports that the firewall lets in."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from ansible.module_utils.kilonova.preflight.messages import Facts, message

# Variables with networks, and those with addresses of hosts.
NETWORKS = ("firewall_ssh_sources", "firewall_api_sources")
ADDRESSES = ("firewall_addresses",)


def _network(text: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(str(text))
    except ValueError:
        return None


def check_sources(values: Mapping[str, object]) -> list[str]:
    """Report elements that are no addresses or networks."""
    found = []
    for name in NETWORKS + ADDRESSES:
        value = values.get(name)
        for text in value if isinstance(value, list) else []:
            network = _network(text)
            if network is None:
                why = "this is neither an address nor a network in CIDR form without host bits"
                found.append(message(name, text, why, "Write an address or network such as 192.0.2.0/24"))
            elif name in ADDRESSES and (network.version != 4 or network.num_addresses != 1):
                found.append(message(name, text, "hosts talk from IPv4 addresses", "Write one such as 192.0.2.10"))
    return found


def check_way_in(facts: Facts, sources: object, ports: object, hosts: Iterable[str]) -> list[str]:
    """Require that the firewall lets the connection of this run in."""
    connection = facts.get("ssh") or {}
    source, found = str(connection.get("source") or ""), []
    if not source:
        return []
    # sshd reports IPv4 on an IPv6 socket so.
    address = ipaddress.ip_address(source.removeprefix("::ffff:"))
    allowed = [network for text in sources if (network := _network(text))] if isinstance(sources, list) else []
    others = {str(host) for host in hosts}
    if str(address) not in others and not any(address in network for network in allowed):
        why = f"this run reaches the host from {address}, which is not among them, and would be locked out"
        found.append(message("firewall_ssh_sources", sources, why, f"Add {address} or a network that contains it"))
    if isinstance(ports, list) and connection["port"] not in [int(port) for port in ports if str(port).isdigit()]:
        why = f"this run reaches sshd on port {connection['port']}, and would be locked out"
        found.append(message("firewall_ssh_ports", ports, why, f"Add {connection['port']}"))
    return found
