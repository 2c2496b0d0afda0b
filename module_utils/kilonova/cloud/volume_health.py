# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Read the services of Cinder and find what is wrong with them."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.kilonova.cloud.api import CloudApi

CINDER = "block_storage"
# Layers by binary.
BINARIES = {
    "cinder-scheduler": "Cinder scheduler",
    "cinder-volume": "Cinder volume",
    "cinder-backup": "Cinder backup",
}


def read_volume_services(api: CloudApi) -> list[dict[str, Any]] | None:
    """Return Cinder's services; None where the catalog has no Cinder."""
    if not api.offers(CINDER):
        return None
    names = ("binary", "host", "zone", "status", "state")
    return [
        {name: one[name] for name in names} | {"disabled_reason": one.get("disabled_reason") or ""}
        for one in api.listing(CINDER, "/os-services", "services")
    ]


def volume_service_faults(services: list[dict[str, Any]] | None) -> list[tuple[str, str, list[str], bool]]:
    """Return the layer, the message, the hosts and whether it may pass of each problem; none without Cinder."""
    found: list[tuple[str, str, list[str], bool]] = []
    if services is None:
        return found
    for one in services:
        layer = BINARIES.get(one["binary"], "Cinder")
        name = f"{one['binary']} {one['host']}"
        # With the name of the backend for cinder-volume, such as ctl1@ceph.
        hosts = [one["host"].partition("@")[0]]
        if one["state"] != "up":
            found.append((layer, f"{name} is down (Cinder gets no heartbeat from it)", hosts, True))
        if one["status"] != "enabled":
            reason = f" ({one['disabled_reason']})" if one["disabled_reason"] else ""
            command = f"openstack volume service set --enable {one['host']} {one['binary']}"
            found.append((layer, f"{name} is {one['status']}{reason}; {command} enables it", hosts, False))
    there = {one["binary"] for one in services}
    found += [
        (layer, f"no {binary} has ever reported to Cinder", [], True)
        for binary, layer in BINARIES.items()
        if binary not in there
    ]
    return found
