# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The module compute_host: what it returns and how it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import compute_host
import pytest
from ansible.module_utils.kilonova.cloud import compute_host as logic


class Cloud:
    """Two computes, of which cmp2 has the guests given."""

    def __init__(self) -> None:
        self.services = [
            {"id": name, "host": name, "status": "enabled", "state": "up", "disabled_reason": None}
            for name in ("cmp1", "cmp2")
        ]
        self.servers: list[dict[str, Any]] = []

    def listing(self, service: str, path: str, key: str, **params: Any) -> list[dict[str, Any]]:
        return {"services": self.services, "servers": self.servers, "agents": []}[key]

    def get(self, service: str, path: str, **params: Any) -> dict[str, Any]:
        assert service == "placement"
        return {"resource_providers": [{"uuid": "p"}]} if params else {"traits": []}

    def put(self, service: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.services[1] |= body
        return {}


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    cloud = Cloud()
    monkeypatch.setattr(logic, "connect", lambda module: None)
    monkeypatch.setattr(logic, "CloudApi", lambda connection, patience: cloud)
    return cloud


@pytest.fixture
def run(cloud: Cloud, run_module: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    return lambda **options: run_module(compute_host, **{"name": "cmp2"} | options)


def test_status(run: Callable[..., dict[str, Any]]) -> None:
    result = run()
    assert (result["changed"], result["actions"]) == (False, []) and "moved" not in result
    result = run(state="disabled")
    assert (result["changed"], result["actions"]) == (True, ["cmp2: disabled (maintenance)"])
    assert result["diff"]["after"] == "cmp2: disabled (maintenance)\n"
    result = run(state="drained")
    assert (result["changed"], result["moved"]) == (False, [])
    # A reason is only for disabling.
    assert run(state="enabled", reason="back")["actions"] == ["cmp2: enabled"]


def test_guests_in_the_way(cloud: Cloud, run: Callable[..., dict[str, Any]]) -> None:
    cloud.servers.append({"id": "a", "name": "the a", "status": "ERROR"})
    result = run(state="drained")
    assert result["failed"] and not result["changed"]
    assert [one["id"] for one in result["servers"]] == ["a"]


def test_predicted_removal(cloud: Cloud, run: Callable[..., dict[str, Any]]) -> None:
    assert run(state="removed", check=True)["actions"] == ["cmp2: removed from Nova"]


def test_unknown_compute(run: Callable[..., dict[str, Any]]) -> None:
    result = run(name="cmp9")
    assert result["failed"] and result["layer"] == "Nova API"
    assert result["msg"] == "Nova API: Nova knows no compute 'cmp9'. It knows: cmp1, cmp2."
    assert run(name="cmp9", state="drained")["failed"]
    result = run(name="cmp9", state="drained", must_exist=False)
    assert (result["changed"], result["moved"]) == (False, [])
