# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Two runs with one inventory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plugins.callback import other_runs


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return []


def start(monkeypatch: pytest.MonkeyPatch, directory: Path, warnings: list[str], inventory: str) -> Any:
    arguments = {"inventory": (inventory,), "args": ("site.yml",)}
    monkeypatch.setattr(other_runs, "context", SimpleNamespace(CLIARGS=arguments))
    plugin = other_runs.CallbackModule()
    monkeypatch.setattr(plugin, "get_option", lambda name: str(directory))
    plugin._display = SimpleNamespace(warning=warnings.append)
    plugin.v2_playbook_on_start(None)
    return plugin


def test_the_later_of_two_runs_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]) -> None:
    first = start(monkeypatch, tmp_path / "runs", warnings, "inventory/mysite")
    assert warnings == []
    start(monkeypatch, tmp_path / "runs", warnings, "inventory/other")
    assert warnings == []
    start(monkeypatch, tmp_path / "runs", warnings, "inventory/mysite")
    assert len(warnings) == 1 and "site.yml (PID " in warnings[0]
    first.lock.close()
    start(monkeypatch, tmp_path / "runs", warnings, "inventory/mysite")
    assert len(warnings) == 1


def test_a_directory_of_another_user_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    (tmp_path / "file").touch()
    assert start(monkeypatch, tmp_path / "file" / "runs", warnings, "inventory/mysite").lock is None
    assert warnings == []
