# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The localnet ports of OVN, compared with Neutron's networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.kilonova.cloud import health, localnet

NETWORK, SWITCH, PORT = "8df9fe74-ca3e-4cd7-9f97-9a7d181ae0fb", "28085213", "6f5e0016"
NETWORKS = {NETWORK: {"name": "nova", "physical_network": "physnet1"}}
# As ovn-nbctl 25.03 prints them.
PORTS = {
    "data": [[["uuid", PORT], "provnet-5a2d", ["map", [["mcast_flood", "false"], ["network_name", "physnet1"]]]]],
    "headings": ["_uuid", "name", "options"],
}
SWITCHES = {
    "data": [
        [f"neutron-{NETWORK}", ["set", [["uuid", SWITCH], ["uuid", PORT]]]],
        ["neutron-tenant", ["uuid", SWITCH]],
        ["neutron-empty", ["set", []]],
    ],
    "headings": ["name", "ports"],
}


def test_what_ovn_prints_is_read(fake_program: Callable[[str, str], Path]) -> None:
    fake_program("ovn-nbctl", f"printf '%s\\n' '{json.dumps(PORTS)}' '{json.dumps(SWITCHES)}'")
    assert localnet.read_localnets() == {NETWORK: {"name": "provnet-5a2d", "physical_network": "physnet1"}}


def test_a_database_that_does_not_answer_is_no_difference(
    fake_program: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_program("ovn-nbctl", "exit 1")
    assert localnet.differences(NETWORKS, localnet.read_localnets()) == []
    monkeypatch.setenv("PATH", "/nonexistent")
    assert localnet.read_localnets() is None


def test_networks_without_a_physical_one_do_not_count() -> None:
    networks = [
        {"id": NETWORK, "name": "nova", "provider:physical_network": "physnet1"},
        {"id": "tenant", "name": "tenant", "provider:physical_network": None},
    ]
    api: Any = SimpleNamespace(listing=lambda *_: networks)
    assert localnet.read_physical_networks(api) == NETWORKS


@pytest.mark.parametrize(
    ("localnets", "message"),
    [
        ({}, "OVN has no localnet port of the network 'nova'; neutron-ovn-db-sync-util"),
        (
            {NETWORK: {"name": "provnet-5a2d", "physical_network": "other"}},
            "the localnet port of the network 'nova' leads to 'other', not to 'physnet1'; ovn-nbctl set "
            "Logical_Switch_Port provnet-5a2d options:network_name=physnet1 corrects it",
        ),
    ],
)
def test_a_port_that_is_gone_or_leads_elsewhere(localnets: dict[str, dict[str, str]], message: str) -> None:
    (found,) = health.judge({"physical_networks": NETWORKS, "localnets": localnets}, [], [], [])
    assert found["layer"] == "OVN" and not found["passes"]
    assert found["message"].startswith(message)
    same = {NETWORK: {"name": "provnet-5a2d", "physical_network": "physnet1"}}
    assert health.judge({"physical_networks": NETWORKS, "localnets": same}, [], [], []) == []
