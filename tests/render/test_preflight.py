# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Preflight with the variables of the sample inventories, on hosts that are looked at for the first time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins import loader as plugins
from ansible.template import Templar, trust_as_template

from plugins.action.preflight import ActionModule
from tests.render import rendering


def interface(*addresses: str) -> dict[str, Any]:
    return {"mac": "", "mtu": 1500, "up": True, "kind": "", "master": "", "ports": [], "addresses": list(addresses)}


FACTS: dict[str, Any] = {
    "os": {"id": "debian", "version": "13", "name": "Debian GNU/Linux 13 (trixie)"},
    "memory_mib": 16384,
    "disk_free_mib": {"/": 20000, "/var": 20000},
    "default_interface": "eth0",
    "listeners": [],
    "kvm": True,
    "kvm_reason": "",
    "ovs_kernel": False,
    "clock": 0.0,
    "pid1": "systemd",
    "apt": True,
    "deployed": False,
    "ssh_host_key": "ssh-ed25519 AAAA root@sample",
}


class Looked(ActionModule):
    """preflight, with what the module preflight_facts would find on the host."""

    facts: dict[str, Any]

    def _execute_module(self, *positional: Any, **named: Any) -> dict[str, Any]:
        return {"facts": self.facts}

    def set_by_inventory(self, variables: Mapping[str, Any]) -> list[str]:
        # The samples say what a run would have found.
        return [name for name in super().set_by_inventory(variables) if name != "preflight_facts"]


def problems(inventory: str, host: str, **changes: Any) -> list[str]:
    """The problems in preflight's message, none where it passes."""
    sample = rendering.load(inventory)
    variables = {name: value for name, value in sample.variables(host).items() if name != "preflight_facts"} | changes
    templar = Templar(loader=sample.loader, variables=variables)
    arguments = {name: 0 for name in ("minimum_memory_mib", "minimum_disk_mib", "minimum_disk_deployed_mib")}
    task = Task.load(
        {"preflight": {**arguments, "maximum_clock_skew": 10**12, "ports": []}},
        variable_manager=sample.variable_manager,
        loader=sample.loader,
    )
    context = PlayContext(play=sample.play)
    connection = plugins.connection_loader.get("ansible.builtin.local", context)
    action = Looked(task, connection, context, sample.loader, templar, plugins)
    address = templar.template(trust_as_template("{{ cloud_management_address }}"))
    interfaces = {"eth0": interface(f"{address}/24"), "eth1": interface(), "eth2": interface()}
    action.facts = FACTS | {"interfaces": interfaces}
    result = action.run(task_vars=variables)
    return re.findall(r"^  \d+\. (.*)$", str(result["msg"]), re.MULTILINE) if result.get("failed") else []


@pytest.mark.parametrize("inventory", ["all_in_one", "multihost"])
def test_sample_inventories_pass(inventory: str) -> None:
    for host in rendering.load(inventory).hosts():
        assert problems(inventory, host) == []


def test_a_way_out_that_the_default_route_does_not_take() -> None:
    (found,) = problems("multihost", "ctl1", public_interface="eth1")
    assert "public_interface = 'eth1': this host's default route leaves by eth0" in found
    assert problems("multihost", "cmp1", public_interface="eth1") == []


def test_each_tunnel_variable_is_looked_at() -> None:
    (found,) = problems("multihost", "cmp1", ovn_chassis_bridge_address="")
    assert "ovn_chassis_bridge_address = '': tunnels over ovn_chassis_tunnel_interface = eth2" in found
    (found,) = problems("multihost", "cmp1", ovn_chassis_tunnel_interface="eth7")
    assert "ovn_chassis_tunnel_interface = 'eth7': this host has no interface of that name" in found
    (found,) = problems("multihost", "cmp1", ovn_chassis_tunnel_address="192.0.2.21")
    assert "ovn_chassis_tunnel_address = '192.0.2.21': the kernel of this host has no openvswitch module" in found
