# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The module instance_directories: what it removes, and when it removes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import instance_directories
import pytest
from ansible.module_utils.kilonova.libvirt import instance_directories as logic

GONE, HERE = "2a3f7c7e-6a0c-4c53-b9c4-65c0a2a3a1de", "7b3c8c0e-5d6c-5b06-9d3c-3d1e5a2f2f10"


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_module: Callable[..., dict[str, Any]]
) -> Callable[..., dict[str, Any]]:
    """Run the module on a host with two directories, of which libvirt knows one guest."""
    for name in (GONE, HERE):
        (tmp_path / name).mkdir()
        (tmp_path / name / "console.log").touch()
        for path in (tmp_path / name / "console.log", tmp_path / name):
            os.utime(path, (1000, 1000))
    domain = SimpleNamespace(UUIDString=lambda: HERE)
    connection = SimpleNamespace(listAllDomains=lambda: [domain])
    monkeypatch.setattr(logic, "connect", lambda module, uri: (None, connection))

    def run(state: str = "active", **options: Any) -> dict[str, Any]:
        def read(self: Any, units: list[Any]) -> None:
            units[0].now = {"ActiveState": state, "ExecMainStartTimestamp": "Sun 2026-11-22 18:11:27 UTC"}

        monkeypatch.setattr(logic.Systemctl, "__init__", lambda self, module: None)
        monkeypatch.setattr(logic.Systemctl, "read", read)
        return run_module(instance_directories, path=str(tmp_path), **options)

    return run


def test_what_an_evacuation_left_goes(tmp_path: Path, run: Callable[..., dict[str, Any]]) -> None:
    assert run(check=True)["removed"] == [str(tmp_path / GONE)] and (tmp_path / GONE).exists()
    result = run()
    assert (result["changed"], result["removed"]) == (True, [str(tmp_path / GONE)])
    assert [path.name for path in tmp_path.iterdir()] == [HERE]
    assert run()["changed"] is False


def test_before_nova_compute_has_cleaned_up(tmp_path: Path, run: Callable[..., dict[str, Any]]) -> None:
    assert run("inactive")["changed"] is False and (tmp_path / GONE).exists()
