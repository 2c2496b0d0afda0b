# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The module unit_logs, with systemctl and the logs substituted."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import unit_logs
from ansible.module_utils.testing import patch_module_args


def run(capsys: pytest.CaptureFixture[str], arguments: dict[str, Any]) -> dict[str, Any]:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        unit_logs.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_units_that_systemd_does_not_know_are_left_out() -> None:
    states = {"ovn-controller": (0, "loaded\n", ""), "ovn-northd": (0, "not-found\n", ""), "other": (1, "", "no bus")}
    module = SimpleNamespace(run_command=lambda command: states[command[-1]])
    assert unit_logs.installed(module, tuple(states)) == ["ovn-controller"]


@pytest.mark.parametrize(("units", "expected"), [(["nova-compute"], "log of nova-compute, 3 lines"), ([], "")])
def test_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], units: list[str], expected: str
) -> None:
    monkeypatch.setattr(unit_logs, "installed", lambda module, wanted: units)
    monkeypatch.setattr(unit_logs, "unit_log", lambda unit, lines: f"log of {unit}, {lines} lines")
    result = run(capsys, {"layer": "Nova compute", "lines": 3})
    assert result["text"].partition("\n")[2] == expected
    assert bool(result["text"]) is bool(units)


def test_unknown_layer(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, {"layer": "Nowa"})
    assert result["failed"]
    assert result["msg"].startswith("'Nowa' is no part of the cloud. They are: Keystone, Glance")
