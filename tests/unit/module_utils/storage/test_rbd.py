# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Clients of a store that does not answer: they do not wait, and say why."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.kilonova.storage import rbd


def check(text: str, *details: str) -> dict[str, Any]:
    return {"summary": {"message": text}, "detail": [{"message": line} for line in details]}


def silent(monkeypatch: pytest.MonkeyPatch, health: dict[str, Any] | None) -> list[tuple[str, float]]:
    """Let rbd never answer, and ceph with this health, or neither."""
    asked: list[tuple[str, float]] = []

    def run(command: tuple[str, ...], timeout: float, **_: Any) -> SimpleNamespace:
        asked.append((command[0], timeout))
        if command[0] == "rbd" or health is None:
            raise subprocess.TimeoutExpired(command, timeout)
        return SimpleNamespace(returncode=0, stdout=json.dumps(health), stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def message(monkeypatch: pytest.MonkeyPatch, health: dict[str, Any] | None) -> str:
    asked = silent(monkeypatch, health)
    with pytest.raises(rbd.Silence) as error:
        rbd.image("images/x", "glance")
    assert [program for program, _ in asked] == ["rbd", "ceph"]
    return str(error.value)


def test_osds_that_are_down(monkeypatch: pytest.MonkeyPatch) -> None:
    down = "osd.%d (root=default,host=%s) is down"
    checks = {
        "OSD_DOWN": check("2 osds down", down % (0, "osd1"), down % (4, "osd2")),
        "OSD_HOST_DOWN": check("1 host (1 osds) down", "host osd1 (root=default) (1 osds) is down"),
        "PG_AVAILABILITY": check("Reduced data availability: 97 pgs inactive", "pg 2.1 is stuck"),
        "MON_DISK_LOW": check("mon osd1 is low on available space"),
    }
    assert message(monkeypatch, {"status": "HEALTH_WARN", "checks": checks}) == (
        "the store does not answer: 2 osds down, Reduced data availability: 97 pgs inactive; "
        "systemctl restart ceph-osd@0 on osd1 and systemctl restart ceph-osd@4 on osd2 starts what is down, "
        "and so does site.yml"
    )


def test_a_store_of_which_the_monitors_know_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert message(monkeypatch, {"status": "HEALTH_OK", "checks": {}}) == (
        "the store does not answer: the monitors of Ceph do, and say HEALTH_OK"
    )


def test_monitors_that_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "the monitors of Ceph do not answer this host either" in message(monkeypatch, None)
