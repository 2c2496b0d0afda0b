# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Keeping what a lab's machines have downloaded."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import lab_packages
import pytest
from ansible.module_utils.kilonova.lab import computer, image
from ansible.module_utils.testing import patch_module_args

LAB_ID = "0f0f0f0f"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shared cache of packages. The test's user need not be root."""
    monkeypatch.setattr(computer, "STATE", tmp_path / "lab")
    monkeypatch.setattr(lab_packages, "require_root", functools.partial(computer.require_root, 0))
    collect = functools.partial(image.collect_packages, cache=tmp_path / "cache")
    monkeypatch.setattr(lab_packages, "collect_packages", collect)
    return tmp_path / "cache" / "packages"


def downloaded(machine: str, name: str, missing_bytes: int = 0) -> Path:
    """A package in a machine's apt cache."""
    content = b"!<arch>\n%-16s%-12d%-6d%-6d%-8s%-10d`\n%s" % (b"data.tar", 0, 0, 0, b"100644", 4, name.encode()[:4])
    path = computer.STATE / LAB_ID / "machines" / machine / "root/var/cache/apt/archives" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content[: len(content) - missing_bytes])
    return path


def run(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    with patch_module_args({"lab_id": LAB_ID} | arguments), pytest.raises(SystemExit):
        lab_packages.main()
    return dict(json.loads(capsys.readouterr().out))


def test_complete_packages_of_all_machines_are_linked_once(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nova = downloaded("nova1", "nova-api_1_all.deb")
    downloaded("nova2", "nova-compute_1_all.deb")
    downloaded("nova2", "glance-api_1_all.deb", missing_bytes=1)
    first = run(capsys)
    assert (first["changed"], first["added"]) == (False, 2)
    assert sorted(path.name for path in store.iterdir()) == ["nova-api_1_all.deb", "nova-compute_1_all.deb"]
    assert (store / "nova-api_1_all.deb").samefile(nova)
    assert run(capsys)["added"] == 0


def test_other_labs_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    downloaded("nova1", "nova-api_1_all.deb")
    assert run(capsys, lab_id="1a2b3c4d")["added"] == 0


def test_check_mode_links_nothing(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    downloaded("nova1", "nova-api_1_all.deb")
    assert run(capsys, _ansible_check_mode=True)["added"] == 0
    assert not store.exists()


def test_other_users_are_told_to_be_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(lab_packages, "require_root", functools.partial(computer.require_root, 1000))
    result = run(capsys)
    assert result["failed"] and "only root may create" in result["msg"]
