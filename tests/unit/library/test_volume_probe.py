# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The module volume_probe: which volume passes for a clone, and that none stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import volume_probe
from ansible.module_utils.kilonova.cloud import volume_probe as logic
from ansible.module_utils.kilonova.cloud.api import CloudError

IMAGE = {"id": "i", "name": "tiny", "status": "active", "virtual_size": 2**30 + 1, "min_disk": 0}


class Cloud:
    """Cinder, which makes a volume at once and deletes it at once."""

    def __init__(self) -> None:
        self.volumes: list[dict[str, Any]] = []
        self.images = [IMAGE]
        self.made: list[dict[str, Any]] = []
        self.becomes = "available"

    def listing(self, service: str, path: str, key: str, **params: Any) -> list[dict[str, Any]]:
        if key == "images":
            return [one for one in self.images if one["name"] == params["name"]]
        return [one for one in self.volumes if one["name"] == params["name"]]

    def get(self, service: str, path: str, **params: Any) -> dict[str, Any]:
        return {"volume": next(one for one in self.volumes if path.endswith(one["id"]))}

    def post(self, service: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.made.append(body["volume"])
        self.volumes.append({"id": f"v{len(self.made)}", "name": body["volume"]["name"], "status": self.becomes})
        return {"volume": self.volumes[-1]}

    def delete(self, service: str, path: str) -> None:
        if not any(path.endswith(one["id"]) for one in self.volumes):
            raise CloudError("Cinder", "not found", 404)
        self.volumes = [one for one in self.volumes if not path.endswith(one["id"])]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    cloud = Cloud()
    monkeypatch.setattr(logic, "connect", lambda module: None)
    monkeypatch.setattr(logic, "CloudApi", lambda connection: cloud)
    monkeypatch.setattr(logic, "POLL_SECONDS", 0)
    monkeypatch.setattr(logic, "layer_logs", lambda layers: f"logs of {', '.join(layers)}")
    return cloud


@pytest.fixture
def probe(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, run_module: Callable[..., dict[str, Any]]
) -> Callable[..., dict[str, Any]]:
    """Run the module where Ceph says this of the volume."""

    def run(answer: dict[str, Any], **options: Any) -> dict[str, Any]:
        asked: list[tuple[str, str]] = []

        def describe(source: str, user: str) -> dict[str, Any]:
            asked.append((source, user))
            return answer

        monkeypatch.setattr(logic, "describe", describe)
        arguments = {"image": "tiny", "pool": "volumes", "parent_pool": "images"}
        return {**run_module(volume_probe, **{**arguments, **options}), "asked": asked}

    return run


def test_a_clone(cloud: Cloud, probe: Callable[..., dict[str, Any]]) -> None:
    result = probe({"parent": "images/i"})
    assert (result["changed"], result["parent"], result["asked"]) == (
        False,
        "images/i",
        [("volumes/volume-v1", "cinder")],
    )
    assert cloud.made == [{"name": "kilonova-probe", "size": 2, "imageRef": "i"}] and cloud.volumes == []


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"parent": ""}, "none: a copy"),
        ({"parent": "images/another"}, "Its parent: images/another"),
        ({"problem": "permission denied"}, "does not show the volume v1 to client.cinder: permission denied"),
    ],
)
def test_what_is_no_clone(cloud: Cloud, probe: Callable[..., dict[str, Any]], answer: dict[str, Any], why: str) -> None:
    result = probe(answer)
    assert result["failed"] and why in result["msg"] and "logs of Cinder volume" in result["msg"]
    assert result["layer"] == "Cinder volume" and cloud.volumes == []


def test_what_a_killed_run_has_left_goes(cloud: Cloud, probe: Callable[..., dict[str, Any]]) -> None:
    cloud.volumes = [
        {"id": "old", "name": "kilonova-probe", "status": "error"},
        {"id": "data", "name": "data", "status": "available"},
    ]
    assert probe({"parent": "images/i"})["changed"] is False
    assert [one["id"] for one in cloud.volumes] == ["data"]


def test_a_volume_that_is_not_made(cloud: Cloud, probe: Callable[..., dict[str, Any]]) -> None:
    cloud.becomes = "error"
    result = probe({})
    assert "a volume of the image 'tiny' is in the state error" in result["msg"] and cloud.volumes == []
    cloud.becomes = "creating"
    result = probe({}, timeout=0)
    assert "(it is creating) within 0 s" in result["msg"] or "was not removed within 0 s" in result["msg"]


def test_an_image_that_is_not_there(cloud: Cloud, probe: Callable[..., dict[str, Any]], layers: set[str]) -> None:
    cloud.images = [IMAGE | {"status": "queued"}]
    result = probe({})
    assert result["msg"].startswith("Glance: there is no active image 'tiny'") and cloud.made == []
    assert {result["layer"], logic.LAYER} <= layers
