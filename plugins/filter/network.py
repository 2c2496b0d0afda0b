# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters for addresses, networks and interfaces."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError


def first_host(cidr: str) -> str:
    """Return the first usable address of a network."""
    try:
        return str(next(iter(ipaddress.ip_network(cidr, strict=False).hosts())))
    except (ValueError, StopIteration) as error:
        raise AnsibleFilterError(f"'{cidr}' is not a network in CIDR form: {error}") from error


def prefix_length(cidr: str) -> int:
    """Return the prefix length of a network."""
    try:
        return ipaddress.ip_network(cidr, strict=False).prefixlen
    except ValueError as error:
        raise AnsibleFilterError(f"'{cidr}' is not a network in CIDR form: {error}") from error


def hosts_lines(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return lines for /etc/hosts with the management address and name of each host."""

    return [f"{_management_address(host, hostvars[host])} {host}" for host in hosts]


def management_addresses(
    hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], variable: str = ""
) -> list[str]:
    """Return the management address of each host, in their order. A variable of the inventory may name another one."""
    return [str(hostvars[host].get(variable) or _management_address(host, hostvars[host])) for host in hosts]


def _management_address(host: str, variables: Mapping[str, Any]) -> str:
    return str(variables.get("cloud_management_address") or variables.get("ansible_host") or host)


def host_addresses(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the IPv4 addresses from which hosts talk to each other: for management, for tunnels, and further ones."""
    found = set()
    for host in hosts:
        variables = hostvars[host]
        tunnel = variables.get("ovn_chassis_tunnel_address") or variables.get("ovn_chassis_bridge_address") or ""
        found.update([_management_address(host, variables), str(tunnel).partition("/")[0]])
        found.update(map(str, variables.get("firewall_addresses") or []))
    return sorted(found - {""})


def addresses_on(interfaces: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> list[str]:
    """Return the addresses of the named interfaces, without prefix length."""
    return [
        cidr.partition("/")[0]
        for name in dict.fromkeys(names)
        for cidr in interfaces.get(name, {}).get("addresses", [])
    ]


def interface_with(interfaces: Mapping[str, Mapping[str, Any]], address: str, otherwise: str) -> str:
    """Return the name of the interface that has an address, or ``otherwise``."""
    found = [name for name in interfaces if address in addresses_on(interfaces, [name])]
    return found[0] if found else otherwise


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "addresses_on": addresses_on,
            "first_host": first_host,
            "host_addresses": host_addresses,
            "hosts_lines": hosts_lines,
            "interface_with": interface_with,
            "management_addresses": management_addresses,
            "prefix_length": prefix_length,
        }
