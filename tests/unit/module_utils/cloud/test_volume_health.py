# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the services of Cinder."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.kilonova.cloud import volume_health

HOSTS = {"cinder-scheduler": "node1", "cinder-volume": "node1@ceph", "cinder-backup": "node1"}


def services(**changes: Any) -> list[dict[str, Any]]:
    """Healthy services, but for changes to cinder-volume."""
    healthy = {"zone": "nova", "status": "enabled", "state": "up", "disabled_reason": None}
    return [
        {"binary": binary, "host": host} | healthy | (changes if binary == "cinder-volume" else {})
        for binary, host in HOSTS.items()
    ]


def read(found: list[dict[str, Any]], offered: bool = True) -> list[dict[str, Any]] | None:
    api = SimpleNamespace(offers=lambda service: offered, listing=lambda service, path, key: found)
    return volume_health.read_volume_services(api)  # type: ignore[arg-type]


def test_healthy() -> None:
    assert volume_health.volume_service_faults(read(services())) == []


def test_a_cloud_without_cinder() -> None:
    assert read([], offered=False) is None
    assert volume_health.volume_service_faults(None) == []


@pytest.mark.parametrize(
    ("changes", "text", "passes"),
    [
        ({"state": "down"}, "cinder-volume node1@ceph is down (Cinder gets no heartbeat from it)", True),
        (
            {"status": "disabled", "disabled_reason": "moved"},
            "cinder-volume node1@ceph is disabled (moved); openstack volume service set --enable node1@ceph "
            "cinder-volume enables it",
            False,
        ),
    ],
)
def test_a_service_that_is_not_up(changes: dict[str, Any], text: str, passes: bool) -> None:
    found = volume_health.volume_service_faults(read(services(**changes)))
    assert found == [("Cinder volume", text, ["node1"], passes)]


def test_a_service_that_never_reported() -> None:
    found = volume_health.volume_service_faults(read(services()[:2]))
    assert found == [("Cinder backup", "no cinder-backup has ever reported to Cinder", [], True)]


def test_the_host_of_a_service() -> None:
    found = volume_health.volume_service_faults(read([services()[0] | {"state": "down"}, *services()[1:]]))
    assert [(hosts, passes) for _, _, hosts, passes in found] == [(["node1"], True)]
