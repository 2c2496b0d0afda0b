# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters for the guests that verification boots and compares."""

from __future__ import annotations

from typing import Any

from plugins.filter import guests as filters


def test_computes_to_probe_are_those_that_are_not_verified() -> None:
    hostvars: dict[str, dict[str, Any]] = {
        "cmp1": {},
        "cmp2": {"verify_compute_found": {"compute": {}, "verified": True}},
        "cmp3": {"verify_compute_found": {"compute": {}, "verified": False}},
        # Not looked at, because it runs the guest that is checked anyway.
        "cmp4": {"verify_compute_found": {"skipped": True}},
    }
    assert filters.computes_to_probe(hostvars, hostvars, False) == ["cmp3"]
    assert filters.computes_to_probe(hostvars, hostvars, True) == ["cmp2", "cmp3"]


def test_what_libvirt_must_run_for_a_server() -> None:
    ports = [{"port_id": "p", "mac": "fa:16:3e:00:00:01", "address": "192.168.1.9"}]
    server = {"id": "s", "flavor": {"name": "m1.tiny", "vcpus": 1, "ram": 512, "disk": 2}, "ports": ports}
    assert filters.expected_of_libvirt(server) == {"vcpus": 1, "memory_mib": 512, "disk_gib": 2, "interfaces": ports}
