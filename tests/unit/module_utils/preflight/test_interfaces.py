# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Messages about interfaces."""

from __future__ import annotations

import pytest
from ansible.module_utils.kilonova.preflight import interfaces

from tests.unit.module_utils.preflight.sample import host, interface


@pytest.mark.parametrize(
    ("name", "why", "instead"),
    [
        (
            "br-provider0",
            "br-provider0-ovs and ovs-br-provider0, the veth pair to Open vSwitch, have 16 characters, and an "
            "interface's name has at most 15",
            "Write a name of at most 11 characters, such as br0",
        ),
        (
            "br 0",
            "a bridge's name consists of letters, digits, - and _, and starts with a letter or digit",
            "Write a name such as br0",
        ),
        ("eth0", "the bridge cannot have the name of its port, flat_interface", "Write another name, such as br0"),
        (
            "eth1",
            "this host has an interface of that name that is no bridge",
            "Write a name that is free, such as br0",
        ),
    ],
)
def test_invalid_bridge_name(name: str, why: str, instead: str) -> None:
    assert interfaces.check_bridge_name(host(), name, "eth0") == [f"flat_network_bridge = '{name}': {why}. {instead}."]


def test_valid_bridge_names() -> None:
    taken = host(interfaces={"br0": interface(kind="bridge")})
    assert interfaces.check_bridge_name(taken, "br0", "eth0") == []
    assert interfaces.check_bridge_name(host(), "br-provider", "eth0") == []


def test_flat_interface_absent() -> None:
    assert interfaces.check_flat_interface(host(), "eth0", "br0") == []
    assert interfaces.check_flat_interface(host(), "enp1s0", "br0") == [
        "flat_interface = 'enp1s0': this host has no interface of that name. Write one of: eth0, eth1."
    ]


def test_flat_interface_of_another_bridge() -> None:
    enslaved = host(interfaces={"eth0": interface(master="br9"), "br9": interface(kind="bridge")})
    assert interfaces.check_flat_interface(enslaved, "eth0", "br0") == [
        "flat_interface = 'eth0': that interface is part of br9. Write br9 if that is a bond, one of: eth0, or set "
        "flat_network_bridge to br9."
    ]
    assert interfaces.check_flat_interface(enslaved, "eth0", "br9") == []


def test_flat_interface_that_cannot_be_a_port() -> None:
    wireless = host(interfaces={"wlan0": interface(kind="wireless"), "eth0": interface()})
    assert interfaces.check_flat_interface(wireless, "wlan0", "br0") == [
        "flat_interface = 'wlan0': a wireless interface cannot be a port of a bridge. Write one of: eth0, wlan0."
    ]


def test_public_interface_absent() -> None:
    assert interfaces.check_public_interface(host(), "br0", "eth0", "br0") == []
    assert interfaces.check_public_interface(host(), "eth1", "eth0", "br0") == []
    assert interfaces.check_public_interface(host(), "eth5", "eth0", "br0") == [
        "public_interface = 'eth5': this host has no interface of that name. Leave it out, or write one of: eth0, eth1."
    ]


@pytest.mark.parametrize(
    ("public", "flat", "serves"),
    [
        ("eth0", "eth0", True),
        ("br0", "eth0", True),
        ("eth0", "eth1", True),
        ("eth1", "eth1", False),
    ],
)
def test_guests_get_out(public: str, flat: str, serves: bool) -> None:
    assert interfaces.check_way_out(host(), public, flat, "br0", serves) == []
    deployed = host(default_interface="br0" if flat == "eth0" else "eth0")
    assert interfaces.check_way_out(deployed, public, flat, "br0", serves) == []


def test_guests_do_not_get_out() -> None:
    for public in ("eth1", "br0"):
        assert interfaces.check_way_out(host(), public, "eth1", "br0", True) == [
            f"public_interface = '{public}': this host's default route leaves by eth0, where guests get no "
            "SNAT. Leave it out, or write eth0."
        ]
    assert interfaces.check_way_out(host(default_interface=""), "eth1", "eth1", "br0", True) == []


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("node1", "this is not an IPv4 address; services need an address, not a name"),
        ("fd00::2", "this is an IPv6 address, and an IPv4 address is needed"),
        ("127.0.0.1", "other hosts cannot reach a loopback address"),
        ("10.0.0.9", "this host does not have that address"),
    ],
)
def test_wrong_management_address(value: str, why: str) -> None:
    assert interfaces.check_own_address(host(), "cloud_management_address", value) == [
        f"cloud_management_address = '{value}': {why}. Write one of this host's addresses in its host variables: "
        "10.0.0.2 (eth0), 172.16.0.2 (eth1)."
    ]


def test_right_management_address() -> None:
    assert interfaces.check_own_address(host(), "cloud_management_address", "172.16.0.2") == []
