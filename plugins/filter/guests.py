# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters for the guests that verification boots and compares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def computes_to_probe(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], again: bool) -> list[str]:
    """Return the hosts that compute_verification found not verified; with ``again``, all that it examined."""
    results = {host: hostvars[host].get("verify_compute_found", {}) for host in hosts}
    return [host for host, found in results.items() if "compute" in found and (again or not found["verified"])]


def probe_servers(hosts: Iterable[str], server: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one server for each compute, pinned to it, as cloud_resources takes them."""
    return [{**server, "name": f"kilonova-probe-{host}", "host": host} for host in hosts]


def expected_of_libvirt(server: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a server of cloud_health into what libvirt_instance expects."""
    flavor = server["flavor"]
    return {
        "vcpus": flavor["vcpus"],
        "memory_mib": flavor["ram"],
        "disk_gib": flavor["disk"],
        "interfaces": server["ports"],
    }


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "computes_to_probe": computes_to_probe,
            "expected_of_libvirt": expected_of_libvirt,
            "probe_servers": probe_servers,
        }
