# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The module unit_logs, with substitutes for systemctl and the logs."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import unit_logs
from ansible.module_utils.kilonova.system import service_index
from ansible.module_utils.testing import patch_module_args


def run(capsys: pytest.CaptureFixture[str], arguments: dict[str, Any]) -> dict[str, Any]:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        unit_logs.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_units_that_systemd_does_not_know_are_left_out() -> None:
    states = {"ovn-controller": (0, "loaded\n", ""), "ovn-northd": (0, "not-found\n", ""), "other": (1, "", "no bus")}
    module = SimpleNamespace(run_command=lambda command: states[command[-1]])
    assert unit_logs.installed(module, list(states)) == ["ovn-controller"]


@pytest.mark.parametrize("there", [True, False])
def test_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], there: bool) -> None:
    monkeypatch.setattr(unit_logs, "installed", lambda module, units: units if there else [])
    monkeypatch.setattr(unit_logs, "unit_log", lambda unit, lines: f"log of {unit}, {lines} lines")
    text = run(capsys, {"layer": "guest", "lines": 3})["text"]
    assert text.splitlines()[1:] == (["log of nova-compute, 3 lines", "log of libvirtd, 3 lines"] if there else [])
    assert bool(text) is there


def test_unknown_layer(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, {"layer": "Nowa"})
    assert result["failed"]
    assert "'Nowa' is not a layer" in result["msg"] and "Keystone, Glance" in result["msg"]


def test_a_host_without_an_index_does_not_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its caller collects logs for a failure that must not be hidden."""
    monkeypatch.setattr(service_index, "PATH", "/nonexistent/services.json")
    assert "/nonexistent/services.json is missing" in run(capsys, {"layer": "Nova compute"})["text"]
