# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Messages about tunnels."""

from __future__ import annotations

import pytest
from ansible.module_utils.kilonova.preflight import tunnels

from tests.unit.module_utils.preflight.sample import host, interface

BRIDGES = ("br-provider", "kilonova-tunnel")


OVER_ETH1 = ("kilonova-tunnel", "br-provider")


def test_user_space_tunnels_need_an_address() -> None:
    found = tunnels.check_tunnel(host(ovs_kernel=False), "", "", BRIDGES, 2)
    assert found == [
        "ovn_chassis_bridge_address = '': the kernel of this host has no openvswitch module, and Open vSwitch in user "
        "space can send the packets of tunnels to other hosts only from an address on br-provider. Write "
        "an address with prefix length in a network for tunnels only, such as 10.78.0.14/24, a different one for each "
        "host."
    ]


@pytest.mark.parametrize(("kernel", "hosts"), [(True, 2), (False, 1)])
def test_other_tunnels_need_none(kernel: bool, hosts: int) -> None:
    assert tunnels.check_tunnel(host(ovs_kernel=kernel), "", "", BRIDGES, hosts) == []


@pytest.mark.parametrize("kernel", [True, False])
def test_an_interface_for_tunnels_needs_an_address(kernel: bool) -> None:
    assert tunnels.check_tunnel(host(ovs_kernel=kernel), "", "eth1", OVER_ETH1, 2) == [
        "ovn_chassis_bridge_address = '': tunnels over ovn_chassis_tunnel_interface = eth1 end at this address on "
        "kilonova-tunnel. Write an address with prefix length in a network for tunnels only, such as "
        "10.78.0.14/24, a different one for each host."
    ]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("10.78.0.14", "other hosts' addresses must be in the same network"),
        ("10.78.0.14/32", "other hosts' addresses must be in the same network"),
        ("tunnel/24", "this is not an IPv4 address with prefix length (Expected 4 octets in 'tunnel')"),
        ("10.0.0.77/24", "eth0 is in that network already, with 10.0.0.2/24"),
    ],
)
def test_wrong_tunnel_address(value: str, why: str) -> None:
    assert tunnels.check_tunnel(host(), value, "", BRIDGES, 2) == [
        f"ovn_chassis_bridge_address = '{value}': {why}. Write an address with prefix length in a network for "
        "tunnels only, such as 10.78.0.14/24."
    ]


def test_right_tunnel_address() -> None:
    assert tunnels.check_tunnel(host(ovs_kernel=False), "10.78.0.14/24", "", BRIDGES, 2) == []
    # An earlier run put it on the other of our bridges, or the interface still has it, which is said of the interface.
    for name in ("br-provider", "kilonova-tunnel", "eth1"):
        moving = host(interfaces={name: interface("10.78.0.14/24")})
        assert tunnels.check_tunnel(moving, "10.78.0.14/24", "eth1", OVER_ETH1, 2) == []


def test_right_tunnel_interface() -> None:
    free = host(interfaces={"eth0": interface("10.0.0.2/24"), "eth1": interface(), "eth2": interface()})
    assert tunnels.check_tunnel_interface(free, "", "eth0") == []
    assert tunnels.check_tunnel_interface(free, "eth2", "eth1") == []
    deployed = host(interfaces={"eth1": interface(master="ovs-system")})
    assert tunnels.check_tunnel_interface(deployed, "eth1", "eth0") == []


@pytest.mark.parametrize(
    ("name", "why", "instead"),
    [
        ("eth7", "this host has no interface of that name", "Leave it out, or write one of: eth2, wlan0"),
        ("eth0", "this is flat_interface, over which tunnels go when this is left out", "Leave it out"),
        ("eth2", "that interface is part of bond0", "Leave it out, or write one of: eth2, wlan0"),
        (
            "wlan0",
            "a wireless interface cannot be a port of a bridge of Open vSwitch",
            "Leave it out, or write one of: eth2, wlan0",
        ),
        (
            "eth1",
            "it has the address 172.16.0.2/24, which no longer works once the interface is a port of a bridge",
            "If it is for tunnels only, remove the address of eth1 from /etc/network/interfaces and write it in "
            "ovn_chassis_bridge_address. Otherwise leave this out, and set ovn_chassis_tunnel_address to 172.16.0.2",
        ),
    ],
)
def test_wrong_tunnel_interface(name: str, why: str, instead: str) -> None:
    several = host(
        interfaces={
            "eth0": interface("10.0.0.2/24"),
            "eth1": interface("172.16.0.2/24"),
            "eth2": interface(master="bond0"),
            "wlan0": interface(kind="wireless"),
        }
    )
    assert tunnels.check_tunnel_interface(several, name, "eth0") == [
        f"ovn_chassis_tunnel_interface = '{name}': {why}. {instead}."
    ]


def test_user_space_has_no_other_way_for_an_addressed_tunnel_interface() -> None:
    (found,) = tunnels.check_tunnel_interface(host(ovs_kernel=False), "eth1", "eth0")
    assert found.endswith(" and write it in ovn_chassis_bridge_address.")


def test_right_end_of_tunnels() -> None:
    assert tunnels.check_tunnel_address(host(), "10.0.0.2", "", "10.0.0.2", 2) == []
    assert tunnels.check_tunnel_address(host(), "172.16.0.2", "", "10.0.0.2", 2) == []
    assert tunnels.check_tunnel_address(host(ovs_kernel=False), "10.78.0.14", "10.78.0.14/24", "10.0.0.2", 2) == []


def test_wrong_end_of_tunnels() -> None:
    for address in ("172.16.0.9", "node1", "127.0.0.1"):
        assert tunnels.check_tunnel_address(host(), address, "", "10.0.0.2", 2) == [
            f"ovn_chassis_tunnel_address = '{address}': this host does not have that address. Leave it out, or write "
            "one of: 172.16.0.2, 10.0.0.2."
        ]
    assert tunnels.check_tunnel_address(host(ovs_kernel=False), "172.16.0.2", "10.78.0.14/24", "10.0.0.2", 2) == [
        "ovn_chassis_tunnel_address = '172.16.0.2': the kernel of this host has no openvswitch module, and Open "
        "vSwitch in user space can send the packets of tunnels from ovn_chassis_bridge_address = 10.78.0.14/24 only. "
        "Leave it out."
    ]
