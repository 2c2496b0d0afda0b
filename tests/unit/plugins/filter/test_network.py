# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters for addresses, networks and interfaces."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from plugins.filter import network as filters


@pytest.mark.parametrize(
    ("network", "address", "length"),
    [
        ("192.168.1.0/24", "192.168.1.1", 24),
        ("192.168.1.77/24", "192.168.1.1", 24),
        ("10.0.0.0/8", "10.0.0.1", 8),
        ("10.0.0.8/31", "10.0.0.8", 31),
        ("10.0.0.8/32", "10.0.0.8", 32),
        ("10.0.0.8", "10.0.0.8", 32),
    ],
)
def test_first_address_and_prefix_length(network: str, address: str, length: int) -> None:
    assert filters.first_host(network) == address
    assert filters.prefix_length(network) == length


@pytest.mark.parametrize("network", ["", "192.168.1.0/33", "192.168.1/24", "nova"])
def test_what_is_no_network_is_named(network: str) -> None:
    for function in (filters.first_host, filters.prefix_length):
        with pytest.raises(AnsibleFilterError, match=f"'{network}' is not a network in CIDR form"):
            function(network)


def test_lines_for_etc_hosts() -> None:
    hostvars = {
        "nova1": {"cloud_management_address": "10.0.0.11", "ansible_host": "203.0.113.5"},
        "nova2": {"ansible_host": "10.0.0.12"},
        "10.0.0.13": {},
        "nova4": {"cloud_management_address": "", "ansible_host": "10.0.0.14"},
    }
    assert filters.hosts_lines(hostvars, hostvars) == [
        "10.0.0.11 nova1",
        "10.0.0.12 nova2",
        "10.0.0.13 10.0.0.13",
        "10.0.0.14 nova4",
    ]
    assert filters.hosts_lines(["nova2"], hostvars) == ["10.0.0.12 nova2"]
    assert filters.management_addresses(["nova2", "nova1"], hostvars) == ["10.0.0.12", "10.0.0.11"]


def test_interfaces_and_their_addresses() -> None:
    interfaces: dict[str, dict[str, list[str]]] = {
        "eth0": {"addresses": ["10.0.0.11/24", "fd00::11/64"]},
        "br0": {"addresses": ["192.168.1.1/24"]},
        "eth1": {"addresses": []},
    }
    assert filters.addresses_on(interfaces, ["br0", "eth0", "eth7", "br0"]) == ["192.168.1.1", "10.0.0.11", "fd00::11"]
    assert filters.addresses_on(interfaces, ["eth1"]) == []
    assert filters.interface_with(interfaces, "192.168.1.1", "eth1") == "br0"
    assert filters.interface_with(interfaces, "10.0.0.1", "eth1") == "eth1"


def test_addresses_from_which_hosts_talk() -> None:
    hostvars: dict[str, dict[str, object]] = {
        "nova1": {"cloud_management_address": "10.0.0.11", "ovn_chassis_bridge_address": "198.18.0.1/24"},
        "nova2": {
            "ansible_host": "10.0.0.12",
            "ovn_chassis_tunnel_address": "10.1.0.12",
            "firewall_addresses": ["10.2.0.12"],
        },
        "10.0.0.13": {},
    }
    assert filters.host_addresses(["nova2"], hostvars) == ["10.0.0.12", "10.1.0.12", "10.2.0.12"]
    assert filters.host_addresses(["10.0.0.13", "nova1"], hostvars) == ["10.0.0.11", "10.0.0.13", "198.18.0.1"]
