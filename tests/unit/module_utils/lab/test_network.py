# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A lab's subnet, resolvers and inventory values."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils.kilonova.lab import network
from ansible.module_utils.kilonova.lab.computer import LabError

from plugins.filter import lab as lab_filter

SUBNET = ipaddress.IPv4Network("10.208.7.0/24")


@pytest.mark.parametrize(
    ("route", "conflicts"),
    [
        ({"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"}, False),
        ({"dst": "192.0.2.0/24", "dev": "eth0"}, False),
        ({"dst": "10.208.7.0/24", "dev": "kl1a2b3c4d"}, False),  # its own
        ({"dst": "10.0.0.0/8", "gateway": "192.0.2.9", "dev": "tun0"}, False),  # covers it, but from far away
        ({"dst": "10.0.0.0/8", "dev": "eth0"}, True),
        ({"dst": "10.208.7.0/24", "dev": "eth1"}, True),
        ({"dst": "10.208.0.0/20", "gateway": "192.0.2.9", "dev": "eth0"}, True),
        ({"dst": "10.208.7.200", "gateway": "192.0.2.9", "dev": "eth0"}, True),
    ],
)
def test_overlap_with_routes(route, conflicts):
    assert bool(network.overlaps(SUBNET, "kl1a2b3c4d", [route], {})) is conflicts


def test_overlap_with_another_lab_names_it():
    found = network.overlaps(SUBNET, "kl1a2b3c4d", [], {"ffffffff of /srv/x": "10.208.7.0/25"})
    assert found == ["the lab ffffffff of /srv/x (10.208.7.0/25)"]


def test_overlap_message_says_what_to_change(monkeypatch, tmp_path: Path):
    other = tmp_path / "ffffffff"
    other.mkdir()
    (other / "lab.json").write_text('{"project": "/srv/x", "subnet": "10.208.7.0/24"}')
    monkeypatch.setattr(network, "STATE", tmp_path)
    monkeypatch.setattr(network, "run", lambda _: type("Done", (), {"stdout": "[]"}))
    with pytest.raises(LabError, match=r"overlaps the lab ffffffff of /srv/x .* set lab_subnet"):
        network.check_overlaps(SUBNET, "1a2b3c4d")
    network.check_overlaps(SUBNET, "ffffffff")


@pytest.mark.parametrize("text", ["10.208.7.1/24", "10.208.0.0/16", "10.208.7.0/30", "here", "fd00::/64"])
def test_bad_subnet_is_refused_by_name(text):
    with pytest.raises(LabError, match="lab_subnet is"):
        network.lab_subnet(text)


def test_gateway_is_the_first_address():
    assert network.gateway_of("10.208.7.0/24") == lab_filter.lab_gateway("10.208.7.0/24") == "10.208.7.1"


def test_loopback_resolver_gives_way_to_the_real_ones(tmp_path: Path):
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\noptions edns0\nsearch lan\n")
    real.write_text("nameserver 192.0.2.53\nsearch lan\n")
    assert network.resolver_text([], (stub, real)) == "search lan\nnameserver 192.0.2.53\n"
    assert network.resolver_text(["192.0.2.1"], (stub, real)) == "nameserver 192.0.2.1\n"
    with pytest.raises(LabError, match="lab_nameservers"):
        network.resolver_text([], (stub, tmp_path / "none"))


def test_foreign_forward_policy_is_noticed():
    chains: list[dict[str, Any]] = [
        {"metainfo": {}},
        {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
        {"chain": {"family": "ip6", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
        {"chain": {"family": "ip", "table": "nat", "name": "POSTROUTING", "hook": "postrouting", "policy": "accept"}},
    ]
    assert network.forward_drops(chains, "1a2b3c4d") == ["ip filter FORWARD"]


def test_last_lab_puts_forwarding_back(monkeypatch, tmp_path: Path):
    forward = tmp_path / "ip_forward"
    monkeypatch.setattr(network, "IP_FORWARD", forward)
    monkeypatch.setattr(network, "NETNS", tmp_path / "netns")
    monkeypatch.setattr(network, "COMPUTER_RECORD", tmp_path / "computer.json")
    for found in ("0", "1"):
        forward.write_text(f"{found}\n")
        network.remember_computer()
        forward.write_text("1\n")
        network.remember_computer()  # a second lab must not record what the first one set
        network.restore_computer()
        assert forward.read_text().strip() == found


# ------------------------------------------------------------------ inventory
def test_labs_of_two_checkouts_and_two_names_differ(tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    identifiers = {lab_filter.lab_id(str(p), n) for p in (one, two) for n in ("lab", "molecule-default")}
    assert len(identifiers) == 4
    assert all(len(identifier) == 8 for identifier in identifiers)


def test_same_checkout_through_a_link_is_the_same_lab(tmp_path: Path):
    (tmp_path / "one").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "one")
    assert lab_filter.lab_id(str(tmp_path / "link"), "lab") == lab_filter.lab_id(f"{tmp_path}/one/", "lab")


@pytest.mark.parametrize("identifier", ["00000000", "ffffffff", "1a2b3c4d"])
def test_subnet_is_a_24_in_the_labs_network(identifier):
    network = ipaddress.IPv4Network(lab_filter.lab_subnet(identifier))
    assert network.prefixlen == 24
    assert network.subnet_of(lab_filter.LABS_NETWORK)


def test_address_by_position():
    assert lab_filter.lab_address("10.208.7.0/24", 2) == "10.208.7.12"
    with pytest.raises(AnsibleFilterError, match="no address for machine 6"):
        lab_filter.lab_address("10.208.7.0/28", 5)
