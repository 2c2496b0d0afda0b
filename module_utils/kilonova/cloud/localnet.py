# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Compare the localnet ports of OVN, which lead to physical networks, with what Neutron says of its networks.

Neutron writes them once, when a network is created. Where one is gone or leads elsewhere, its guests are cut off.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

from ansible.module_utils.kilonova.cloud.api import CloudApi
from ansible.module_utils.kilonova.network.ovs_chassis import as_list, table

SECONDS = 10
# The northbound database of this host.
COMMAND = [
    *("ovn-nbctl", "--format=json", "--columns=_uuid,name,options", "find", "Logical_Switch_Port", "type=localnet"),
    *("--", "--columns=name,ports", "list", "Logical_Switch"),
]
PREFIX = "neutron-"
REPAIR = (
    "neutron-ovn-db-sync-util --config-file /etc/neutron/neutron.conf --config-file "
    "/etc/neutron/plugins/ml2/ml2_conf.ini --ovn-neutron_sync_mode repair"
)


def read_physical_networks(api: CloudApi) -> dict[str, dict[str, str]]:
    """Return name and physical network of Neutron's networks that have one, by ID."""
    return {
        one["id"]: {"name": one["name"], "physical_network": one["provider:physical_network"]}
        for one in api.listing("network", "/networks", "networks")
        if one.get("provider:physical_network")
    }


def read_localnets() -> dict[str, dict[str, str]] | None:
    """Return name and physical network of each network's localnet port; None where no northbound database answers."""
    if shutil.which(COMMAND[0]) is None:
        return None
    try:
        done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    ports, switches = map(table, done.stdout.strip().splitlines())
    return localnets_from(ports, switches)


def localnets_from(ports: list[dict[str, Any]], switches: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Join the two tables."""
    by_id = {row["_uuid"]: row for row in ports}
    return {
        switch["name"].removeprefix(PREFIX): {
            "name": by_id[port]["name"],
            "physical_network": by_id[port]["options"].get("network_name", ""),
        }
        for switch in switches
        for port in as_list(switch["ports"])
        if port in by_id
    }


def differences(networks: dict[str, dict[str, str]], localnets: dict[str, dict[str, str]] | None) -> list[str]:
    """Return a sentence for each network whose localnet port is gone or leads elsewhere."""
    if localnets is None:
        return []
    found = []
    for identity, network in networks.items():
        here, wanted = localnets.get(identity), network["physical_network"]
        if here is None:
            found.append(f"OVN has no localnet port of the network '{network['name']}'; {REPAIR} creates it")
        elif here["physical_network"] != wanted:
            command = f"ovn-nbctl set Logical_Switch_Port {here['name']} options:network_name={wanted}"
            found.append(
                f"the localnet port of the network '{network['name']}' leads to '{here['physical_network']}', not to "
                f"'{wanted}'; {command} corrects it"
            )
    return found
