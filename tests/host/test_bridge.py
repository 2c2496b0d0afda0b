# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The bridge over flat_interface, as in the original exercise, and its link to OVN."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest

pytestmark = pytest.mark.on("controller", "compute")


def link(host: Any, name: str) -> dict[str, Any]:
    done = host.run(f"ip -json -details link show {name}")
    assert done.rc == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found


def addresses(host: Any, name: str) -> list[str]:
    done = host.run(f"ip -json -4 addr show {name}")
    assert done.rc == 0, done.stderr
    return [entry["local"] for interface in json.loads(done.stdout) for entry in interface["addr_info"]]


def test_ip_shows_the_bridge(site: Any, host: Any) -> None:
    assert site.bridge in host.check_output("ip a")
    assert link(host, site.bridge)["operstate"] == "UP"


def test_management_address_is_on_the_bridge_only_where_that_is_over_its_interface(site: Any, host: Any) -> None:
    """Lab machines have their management address on eth0. On other hosts, the interfaces are assumed to be the same."""
    apart = site.flat_interface in site.lab_interfaces
    assert (site.management_address in addresses(host, site.bridge)) is not apart
    assert (site.management_address in addresses(host, "eth0")) is apart


def test_brctl_shows_the_interface_under_the_bridge(site: Any, host: Any) -> None:
    shown = host.check_output("brctl show %s", site.bridge)
    assert shown.splitlines()[1].split()[0] == site.bridge
    assert site.flat_interface in shown.split()
    assert addresses(host, site.flat_interface) == []


def test_bridge_has_the_interfaces_mac(site: Any, host: Any) -> None:
    assert link(host, site.bridge)["address"] == link(host, site.flat_interface)["address"]


def test_bridge_forwards_at_once(site: Any, host: Any) -> None:
    bridge = link(host, site.bridge)["linkinfo"]["info_data"]
    assert bridge["stp_state"] == 0
    assert bridge["forward_delay"] == 0


def test_interfaces_file_says_so(site: Any, host: Any) -> None:
    words = [line.split() for line in host.file("/etc/network/interfaces").content_string.splitlines()]
    assert ["auto", site.bridge] in words
    assert ["iface", site.flat_interface, "inet", "manual"] in words
    assert any(line[:3] == ["iface", site.bridge, "inet"] for line in words)
    assert ["bridge_ports", site.flat_interface, f"{site.bridge}-ovs"] in words
    assert ["bridge_stp", "off"] in words
    assert ["bridge_fd", "0"] in words
    assert ["bridge_maxwait", "0"] in words


def test_gateway_of_the_guests(site: Any, host: Any, gateway: Any) -> None:
    inside = site.fixed_gateway or str(ipaddress.ip_network(site.fixed_range)[1])
    serves = site.name == gateway.name and not site.fixed_gateway
    assert (inside in addresses(host, site.bridge)) is serves
    if serves:
        assert host.check_output("cat /proc/sys/net/ipv4/ip_forward") == "1"
        (route,) = json.loads(host.check_output("ip -json -4 route show default"))
        assert f'oifname "{route["dev"]}" masquerade' in host.check_output("nft list table ip kilonova")


def test_bridge_is_joined_to_ovn(site: Any, host: Any) -> None:
    mappings = host.check_output("ovs-vsctl get open_vswitch . external_ids:ovn-bridge-mappings").strip('"')
    bridge = mappings.partition(":")[2]
    ports = host.check_output("ovs-vsctl list-ports %s", bridge).split()
    inside = [port for port in ports if not port.startswith("patch-")]
    assert len(inside) == 1
    peer = link(host, inside[0])["link"]
    assert link(host, peer)["master"] == site.bridge


def test_device_that_open_vswitch_took_down_comes_up_again(host: Any) -> None:
    """The flags are as after the race of Open vSwitch with who sets the device up: promiscuous, and down."""
    if host.check_output("ovs-vsctl get Bridge br-int datapath_type") != "netdev":
        pytest.skip("the kernel forwards here, and counts who wants a device to be promiscuous")
    try:
        for name in ("tapkn", "kn-other"):
            host.check_output(f"ip link add {name} type veth peer name {name}-peer && ip link set {name} promisc on")
        assert host.run("timeout 10 sh -c 'until ip link show up dev tapkn | grep -q .; do sleep 0.1; done'").rc == 0
        assert host.check_output("ip link show up dev kn-other") == ""
    finally:
        host.run("ip link delete tapkn; ip link delete kn-other")
