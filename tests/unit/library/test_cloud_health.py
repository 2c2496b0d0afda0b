# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The module cloud_health: when it waits, when it fails, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cloud_health
import pytest
from ansible.module_utils.kilonova.cloud import cloud_health as logic
from ansible.module_utils.kilonova.cloud import health

BROKEN = [{"layer": "OVN", "message": "node2 is not alive", "hosts": ["node2"], "passes": True}]
STATE: dict[str, Any] = {"services": [], "agents": [], "hypervisors": [], "images": [], "servers": []}


@pytest.fixture
def problems(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, Any]]]:
    """The problems at each look. The last ones stay."""
    looks: list[list[dict[str, Any]]] = []

    def read_all(api: Any, images: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        return dict(STATE), list(looks.pop(0) if len(looks) > 1 else looks[0])

    monkeypatch.setattr(logic, "connect", lambda module: None)
    monkeypatch.setattr(health, "read_all", read_all)
    monkeypatch.setattr(health, "judge", lambda *wanted: [])
    monkeypatch.setattr(health, "layer_logs", lambda layers, lines: f"logs of {layers}")
    monkeypatch.setattr(health, "POLL_SECONDS", 0)
    return looks


def test_a_healthy_cloud(problems: list[Any], run_module: Callable[..., dict[str, Any]]) -> None:
    problems += [[]]
    result = run_module(cloud_health)
    assert {name: result[name] for name in STATE} == STATE
    assert (result["changed"], result["problems"]) == (False, [])


def test_it_waits_until_the_problems_are_gone(problems: list[Any], run_module: Callable[..., dict[str, Any]]) -> None:
    problems += [BROKEN, BROKEN, []]
    assert "failed" not in run_module(cloud_health)
    assert problems == [[]]


def test_it_fails_with_the_remaining_problems(problems: list[Any], run_module: Callable[..., dict[str, Any]]) -> None:
    problems += [BROKEN]
    result = run_module(cloud_health, timeout=0)
    assert result["failed"]
    assert result["msg"].startswith("The cloud is not healthy:\n- OVN: node2 is not alive.")
    assert (result["layer"], result["problems"]) == ("OVN", BROKEN)


def test_a_report_neither_waits_nor_fails(problems: list[Any], run_module: Callable[..., dict[str, Any]]) -> None:
    problems += [BROKEN, []]
    result = run_module(cloud_health, report_only=True)
    assert result["problems"] == BROKEN
    assert "failed" not in result


def test_whether_it_was_healthy_at_once(problems: list[Any]) -> None:
    problems += [BROKEN, []]
    assert health.healthy(None, [], [], [], 5) == (STATE, False)  # type: ignore[arg-type]
    assert health.healthy(None, [], [], [], 5) == (STATE, True)  # type: ignore[arg-type]
