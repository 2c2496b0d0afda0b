# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The module compute_id: a compute keeps its identifier, and gets a new one only where Nova has none of it."""

from __future__ import annotations

import getpass
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import compute_id
import pytest

OLD, OTHER = "2d0c2f2a-8a3f-4f8e-9b7e-1f6a3f6d1f10", "a3b7b0a5-5f0e-4b7e-9d4c-0c5c7f0f6b11"


@pytest.fixture
def host(tmp_path: Path, run_module: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call with the contents of the files: run the module, and return its result and what the files hold then."""
    monkeypatch.setattr("shutil.chown", lambda *_: None)
    paths = {name: tmp_path / name for name in ("file", "record", "log")}

    def run(check: bool = False, **contents: str) -> tuple[dict[str, Any], list[str | None]]:
        for name, path in paths.items():
            path.unlink(missing_ok=True)
            if name in contents:
                path.write_text(contents[name])
        arguments = {name: str(path) for name, path in paths.items()}
        result = run_module(compute_id, check=check, owner=getpass.getuser(), **arguments)
        return result, [paths[name].read_text() if paths[name].exists() else None for name in ("file", "record")]

    return run


def test_a_new_compute_gets_an_identifier(host: Any) -> None:
    result, files = host()
    assert result["changed"] and files == [result["compute_id"]] * 2
    assert uuid.UUID(result["compute_id"]).version == 4
    assert host(check=True)[1] == [None, None]


@pytest.mark.parametrize("contents", [{"file": OLD}, {"record": OLD}, {"file": OLD, "record": ""}])
def test_the_other_file_is_written(host: Any, contents: dict[str, str]) -> None:
    result, files = host(log="started", **contents)
    assert result["changed"] and files == [OLD, OLD]
    predicted, untouched = host(check=True, log="started", **contents)
    assert predicted["changed"] and untouched == [contents.get("file"), contents.get("record")]


def test_nothing_changes_once_both_are_there(host: Any) -> None:
    result, _ = host(file=f"{OLD}\n", record=OLD, log="started")
    assert not result["changed"] and result["compute_id"] == OLD


def test_a_compute_that_left_the_cloud_gets_a_new_identifier(host: Any) -> None:
    result, files = host(record="", log="started")
    assert result["changed"] and files == [result["compute_id"]] * 2


@pytest.mark.parametrize(
    ("contents", "message"),
    [({"file": OTHER, "record": OLD}, f"was deployed as {OLD}"), ({}, "is gone, and nothing on this host has a copy")],
)
def test_what_an_operator_has_to_decide(host: Any, contents: dict[str, str], message: str) -> None:
    result, files = host(log="started", **contents)
    assert result["failed"] and message in result["msg"]
    assert files == [contents.get("file"), contents.get("record")]
    predicted, _ = host(check=True, log="started", **contents)
    assert not predicted["changed"] and message in predicted["needs_you"][0]
