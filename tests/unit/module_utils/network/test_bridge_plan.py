# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A bridge in the files of ifupdown, and the comparison of the kernel with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible.module_utils.kilonova.network.bridge_plan import (
    BEGIN,
    END,
    GATEWAY_MARK,
    Wanted,
    drift,
    for_bridge,
    foreign,
    hands_over,
    plan,
)
from ansible.module_utils.kilonova.network.interfaces import InterfacesError

MAIN = "/etc/network/interfaces"
STATIC = """\
# This file describes the network interfaces available on your system
source /etc/network/interfaces.d/*

auto lo
iface lo inet loopback

# The primary network interface
allow-hotplug eth0 eth1
iface eth0 inet static
    address 10.0.0.2
    netmask 255.255.255.0
    # the way out
    gateway 10.0.0.1
    dns-nameservers 10.0.0.53
    up ip route add 10.9.0.0/16 via 10.0.0.254 \\
        dev eth0
    up ethtool -K eth0 gro off

iface eth1 inet static
\taddress   172.16.0.1/24 \t
\tup   echo \\
     hello
"""
WANTED = Wanted("eth0", "br0", veth=True, gateway_address="192.168.1.1/24")


def stanza_of(text: str, first_line: str) -> str:
    """The lines of a stanza in a rendered file."""
    lines = text.split(first_line + "\n")[1].splitlines()
    return "\n".join(
        line for line in lines[: next((i for i, x in enumerate(lines) if not x.startswith((" ", "\t"))), None)]
    )


def test_option_without_a_stanza_is_an_error() -> None:
    with pytest.raises(InterfacesError, match="'address 10.0.0.1' belongs to no stanza"):
        plan({MAIN: "auto eth0\naddress 10.0.0.1\n"}, MAIN, WANTED)


def test_addresses_move_to_the_bridge_and_the_wire_keeps_its_own() -> None:
    done = plan({MAIN: STATIC}, MAIN, WANTED)
    text = done.files[MAIN]
    bridge = stanza_of(text, "iface br0 inet static")
    assert bridge.splitlines()[:5] == [
        "    bridge_ports eth0 br0-ovs",
        "    bridge_stp off",
        "    bridge_fd 0",
        "    bridge_maxwait 0",
        "    bridge_hw eth0",
    ]
    for line in ("address 10.0.0.2", "netmask 255.255.255.0", "gateway 10.0.0.1", "dns-nameservers 10.0.0.53"):
        assert f"    {line}" in bridge.splitlines()
    assert "dev br0" in bridge
    assert "ethtool" not in bridge
    assert stanza_of(text, "iface eth0 inet manual") == "    up ethtool -K eth0 gro off"
    assert done.addresses == ["10.0.0.2/24", "192.168.1.1/24"]
    assert done.up == ["eth0", "br0-ovs", "br0"]


def test_other_stanzas_keep_their_bytes() -> None:
    text = plan({MAIN: STATIC}, MAIN, WANTED).files[MAIN]
    assert "iface eth1 inet static\n\taddress   172.16.0.1/24 \t\n\tup   echo \\\n     hello\n" in text
    assert "allow-hotplug eth1\n" in text
    assert (
        "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n\n# The primary network interface\n"
        in text
    )


@pytest.mark.parametrize("mtu", [1500, 1400])
def test_second_run_changes_nothing(mtu: int) -> None:
    first = plan({MAIN: STATIC}, MAIN, WANTED, mtu)
    second = plan(first.files, MAIN, WANTED, mtu)
    assert second.files == first.files
    assert second.addresses == first.addresses


def test_mtu_of_the_wire_is_kept_for_all() -> None:
    text = plan({MAIN: STATIC}, MAIN, WANTED, 1400).files[MAIN]
    for first_line in ("iface eth0 inet manual", "iface br0-ovs inet manual", "iface br0 inet static"):
        assert "    mtu 1400" in stanza_of(text, first_line).splitlines()
    assert "ip link set dev ovs-br0 mtu 1400 up" in text
    assert "mtu" not in plan({MAIN: STATIC}, MAIN, WANTED, 1500).files[MAIN]


def test_gateway_comes_and_goes() -> None:
    with_gateway = plan({MAIN: STATIC}, MAIN, WANTED).files
    without = plan(with_gateway, MAIN, Wanted("eth0", "br0", veth=True))
    assert GATEWAY_MARK not in without.files[MAIN]
    assert without.addresses == ["10.0.0.2/24"]
    assert plan(without.files, MAIN, WANTED).files == with_gateway


def test_dhcp_moves_with_its_options_and_ipv6() -> None:
    text = "auto eth0\niface eth0 inet dhcp\n  hostname node1\niface eth0 inet6 auto\n  privext 2\n"
    done = plan({MAIN: text}, MAIN, Wanted("eth0", "br0"))
    assert done.dhcp
    assert "    hostname node1" in stanza_of(done.files[MAIN], "iface br0 inet dhcp").splitlines()
    assert stanza_of(done.files[MAIN], "iface br0 inet6 auto") == "    privext 2"
    assert "iface eth0 inet6" not in done.files[MAIN]


def test_method_static_replaces_ipv4_and_keeps_ipv6() -> None:
    text = "auto eth0\niface eth0 inet dhcp\niface eth0 inet6 auto\n"
    wanted = Wanted(
        "eth0", "br0", method="static", address="10.1.0.5/16", gateway="10.1.0.1", dns=["10.1.0.2", "10.1.0.3"]
    )
    done = plan({MAIN: text}, MAIN, wanted)
    bridge = stanza_of(done.files[MAIN], "iface br0 inet static").splitlines()
    assert bridge[-3:] == ["    address 10.1.0.5/16", "    gateway 10.1.0.1", "    dns-nameservers 10.1.0.2 10.1.0.3"]
    assert "dhcp" not in done.files[MAIN]
    assert "iface br0 inet6 auto" in done.files[MAIN]
    assert done.addresses == ["10.1.0.5/16"]


def test_a_sourced_stanza_moves_into_the_main_file() -> None:
    files = {
        MAIN: "source /etc/network/interfaces.d/*\n",
        "/etc/network/interfaces.d/50-cloud-init": (
            "# by cloud-init\nauto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet dhcp\n"
        ),
    }
    done = plan(files, MAIN, WANTED)
    assert (
        done.files["/etc/network/interfaces.d/50-cloud-init"] == "# by cloud-init\nauto lo\niface lo inet loopback\n\n"
    )
    assert done.files[MAIN].startswith(BEGIN)
    assert done.files[MAIN].index(END) < done.files[MAIN].index("source ")
    assert plan(done.files, MAIN, WANTED).files == done.files


def test_vlans_of_the_wire_are_brought_up_again() -> None:
    text = (
        "auto eth0\niface eth0 inet dhcp\nauto eth0.7\niface eth0.7 inet manual\nauto mgmt\niface mgmt inet "
        "manual\n vlan-raw-device eth0\n"
    )
    assert plan({MAIN: text}, MAIN, Wanted("eth0", "br0")).up == ["eth0", "br0", "eth0.7", "mgmt"]


def test_bridge_written_by_hand_is_taken_over() -> None:
    text = (
        "auto br0\niface br0 inet static\n  address 10.0.0.2/24\n  bridge-ports eth0\n  bridge_fd 15\n  "
        "bridge_ageing 10\n"
    )
    bridge = stanza_of(plan({MAIN: text}, MAIN, WANTED).files[MAIN], "iface br0 inet static").splitlines()
    assert bridge.count("    bridge_fd 0") == 1
    assert "    bridge_ageing 10" in bridge
    assert not [line for line in bridge if "bridge-ports" in line or "bridge_fd 15" in line]


def test_bridge_with_other_ports_is_refused() -> None:
    with pytest.raises(
        InterfacesError, match=r"bridge br0 exists with other ports \(eth5\) than flat_interface = eth0"
    ):
        plan({MAIN: "iface br0 inet dhcp\n bridge_ports eth5\n"}, MAIN, WANTED)


def test_addresses_on_both_are_refused() -> None:
    text = "iface eth0 inet dhcp\niface br0 inet dhcp\n bridge_ports eth0\n"
    with pytest.raises(InterfacesError, match="both eth0 and br0 have addresses in the file"):
        plan({MAIN: text}, MAIN, WANTED)


def test_wrong_address_is_named() -> None:
    with pytest.raises(InterfacesError, match="address '10.0.0.300/24' of br0 is not an address"):
        plan({MAIN: "iface eth0 inet static\n address 10.0.0.300/24\n"}, MAIN, WANTED)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("ip route add default dev eth0", "ip route add default dev br0"),
        ("ip -4 addr add 10.0.0.9/24 dev eth0", "ip -4 addr add 10.0.0.9/24 dev br0"),
        ("ip route add 10.0.0.0/8 dev eth0.5", "ip route add 10.0.0.0/8 dev eth0.5"),
        ("echo dev eth0", "echo dev eth0"),
    ],
)
def test_commands_follow_the_addresses(before: str, after: str) -> None:
    assert for_bridge(before, WANTED) == after


def kernel() -> dict[str, dict[str, object]]:
    """A kernel in which STATIC with a bridge is in effect."""
    return {
        "eth0": {"kind": "", "mtu": 1500, "mac": "02:00:00:00:00:01", "up": True, "ports": [], "addresses": []},
        "br0-ovs": {"kind": "veth", "mtu": 1500, "mac": "02:00:00:00:00:02", "up": True, "ports": [], "addresses": []},
        "ovs-br0": {"kind": "veth", "mtu": 1500, "mac": "02:00:00:00:00:03", "up": True, "ports": [], "addresses": []},
        "br0": {
            "kind": "bridge",
            "mtu": 1500,
            "mac": "02:00:00:00:00:01",
            "up": True,
            "stp": 0,
            "ports": ["br0-ovs", "eth0"],
            "addresses": ["10.0.0.2/24", "192.168.1.1/24"],
        },
    }


def test_no_drift() -> None:
    assert drift(kernel(), plan({MAIN: STATIC}, MAIN, WANTED), WANTED) == []


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("br0", {"kind": "dummy"}, "br0 is not a bridge"),
        ("br0", {"up": False}, "br0 is down"),
        ("br0", {"ports": ["eth0"]}, "br0-ovs is not a port of br0"),
        ("br0", {"addresses": ["10.0.0.2/24"]}, "br0 lacks the address 192.168.1.1/24"),
        ("br0", {"mac": "02:00:00:00:00:09"}, "br0 has not the MAC address of eth0"),
        ("br0", {"stp": 1}, "br0 runs the spanning tree protocol"),
        ("eth0", {"addresses": ["10.0.0.2/24"]}, "eth0 still has the address 10.0.0.2/24"),
    ],
)
def test_drift_is_named(name: str, change: dict[str, object], reason: str) -> None:
    state = kernel()
    state[name].update(change)
    assert drift(state, plan({MAIN: STATIC}, MAIN, WANTED), WANTED) == [reason]


def test_missing_links_are_drift() -> None:
    state = kernel()
    del state["ovs-br0"]
    assert drift(state, plan({MAIN: STATIC}, MAIN, WANTED), WANTED) == ["ovs-br0 does not exist"]
    del state["br0"]
    assert drift(state, plan({MAIN: STATIC}, MAIN, WANTED), WANTED) == ["br0 does not exist"]


def test_what_nothing_describes_is_foreign() -> None:
    state, target = kernel(), plan({MAIN: STATIC}, MAIN, WANTED)
    assert foreign(state, target, WANTED) == []
    state["br0"]["addresses"] = ["10.0.0.2/24", "192.168.1.1/24", "192.0.2.9/24", "2001:db8::1/64"]
    state["br0"]["ports"] = ["br0-ovs", "eth0", "tap0"]
    assert foreign(state, target, WANTED) == ["br0: address 192.0.2.9/24", "br0: port tap0"]
    assert drift(state, target, WANTED) == []
    leased = plan({MAIN: "iface eth0 inet dhcp\n"}, MAIN, WANTED)
    assert foreign(state, leased, WANTED) == ["br0: port tap0"]


def test_an_address_that_moves_is_neither_foreign_nor_missing() -> None:
    wanted = Wanted("eth0", "br0", veth=True, moving_addresses=["192.168.1.1/24"])
    state, target = kernel(), plan({MAIN: STATIC}, MAIN, wanted)
    for addresses in (["10.0.0.2/24"], ["10.0.0.2/24", "192.168.1.1/24"]):
        state["br0"]["addresses"] = addresses
        assert (foreign(state, target, wanted), drift(state, target, wanted)) == ([], [])


def test_dhcp_without_an_address_is_drift() -> None:
    state = kernel()
    state["br0"]["addresses"] = ["192.168.1.1/24"]
    target = plan({MAIN: "iface eth0 inet dhcp\n"}, MAIN, WANTED)
    assert drift(state, target, WANTED) == ["br0 has no address from DHCP"]


def test_an_address_that_begins_to_move_is_all_that_differs() -> None:
    before = plan({MAIN: STATIC}, MAIN, WANTED).files
    moving = Wanted("eth0", "br0", veth=True, moving_addresses=["192.0.2.10/32", "192.168.1.1/24"])
    assert plan(before, MAIN, moving).files != before
    assert hands_over(before, MAIN, moving, 0)
    assert not hands_over(plan(before, MAIN, moving).files, MAIN, moving, 0)
    assert not hands_over({MAIN: STATIC}, MAIN, moving, 0)
    assert not hands_over(before, MAIN, Wanted("eth0", "br0", veth=True), 0)
    assert not hands_over(before, MAIN, replace(moving, mtu=9000), 0)
