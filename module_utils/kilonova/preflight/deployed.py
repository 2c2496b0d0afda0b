# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of variables that cannot change once a cloud is deployed.

The role base records their values on each host, which the module preflight_facts reads back as C(record).
"""

from __future__ import annotations

from collections.abc import Mapping

from ansible.module_utils.kilonova.preflight.messages import Facts, message

RECORD = "/var/lib/kilonova/deployed.json"
ADMIN = "the keypair and the guests of this administrator would stay behind under the old name"
# Why a variable cannot change, and what to do to have the other value beside the old one.
FIXED = {
    "fixed_range": (
        "Neutron cannot change the range of a subnet",
        "add a network with the other range to first_cloud_networks",
    ),
    "first_cloud_network_name": (
        "a flat network has its physical network to itself, so a second one cannot be created",
        "rename the network with 'openstack network set --name' and leave the variable as it is",
    ),
    "cloud_physical_network": (
        "Neutron cannot move a network to another physical network",
        "add a network to first_cloud_networks",
    ),
    "cloud_region": ("the endpoints and computes of the old region would stay behind", "deploy a second cloud"),
    "keystone_service_project": (
        "the users of the services have their roles in the old project",
        "rename the project with 'openstack project set --name' and deploy a new cloud for another one",
    ),
    "keystone_admin_project": (ADMIN, "add a project to catalog_projects"),
    "keystone_admin_user": (ADMIN, "add a user to catalog_users"),
}


def check_recorded(facts: Facts, values: Mapping[str, object]) -> list[str]:
    """Report variables that differ from what this host was deployed with."""
    recorded = facts["record"].get("variables") or {}
    found = []
    for name, (why, otherwise) in FIXED.items():
        if name not in recorded or name not in values or str(values[name]) == str(recorded[name]):
            continue
        instead = (
            f"Write {recorded[name]}; to have another one, {otherwise}. Where the first deployment was interrupted and "
            f"there is nothing to keep, remove {RECORD} from the hosts"
        )
        found.append(message(name, values[name], f"the cloud was deployed with {recorded[name]}, and {why}", instead))
    return found
