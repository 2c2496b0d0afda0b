# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Messages about what the firewall lets in."""

from __future__ import annotations

import pytest
from ansible.module_utils.kilonova.preflight import firewall

from tests.unit.module_utils.preflight.sample import host

EVERYWHERE = ["0.0.0.0/0", "::/0"]


def test_addresses_and_networks_pass() -> None:
    values = {"firewall_ssh_sources": [*EVERYWHERE, "192.0.2.7"], "firewall_addresses": ["192.0.2.1"]}
    assert firewall.check_sources(values) == []


@pytest.mark.parametrize("text", ["192.0.2.7/24", "office", ""])
def test_what_is_no_network(text: str) -> None:
    (found,) = firewall.check_sources({"firewall_api_sources": [text]})
    assert found.startswith(f"firewall_api_sources = {text!r}: this is neither an address nor a network in CIDR form")


@pytest.mark.parametrize("text", ["fd00::1", "192.0.2.0/24"])
def test_hosts_have_ipv4_addresses(text: str) -> None:
    (found,) = firewall.check_sources({"firewall_addresses": [text]})
    assert "hosts talk from IPv4 addresses" in found


@pytest.mark.parametrize(
    ("source", "sources"),
    [
        ("198.51.100.7", EVERYWHERE),
        ("198.51.100.7", ["198.51.100.0/24"]),
        ("::ffff:198.51.100.7", ["198.51.100.7"]),
        ("fd00::7", ["fd00::/64"]),
        # A host of the inventory always may.
        ("192.0.2.10", ["198.51.100.0/24"]),
        # Without ssh there is nothing to lock out.
        ("", []),
    ],
)
def test_a_run_that_may_come_back(source: str, sources: list[str]) -> None:
    facts = host(ssh={"source": source, "port": 22})
    assert firewall.check_way_in(facts, sources, [22, 2222], ["192.0.2.10"]) == []


def test_a_run_that_would_be_locked_out() -> None:
    facts = host(ssh={"source": "198.51.100.7", "port": 2222})
    address, port = firewall.check_way_in(facts, ["192.0.2.0/24", "::/0"], [22], [])
    assert address == (
        "firewall_ssh_sources = ['192.0.2.0/24', '::/0']: this run reaches the host from 198.51.100.7, which is not "
        "among them, and would be locked out. Add 198.51.100.7 or a network that contains it."
    )
    assert port.startswith("firewall_ssh_ports = [22]: this run reaches sshd on port 2222")
