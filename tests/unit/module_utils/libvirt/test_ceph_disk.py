# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What rbd says of a disk, and what it does not say."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.kilonova.libvirt import ceph_disk

# rbd info --format json of Ceph 18, shortened.
INFO = {
    "name": "1ca6bbcd_disk", "size": 1073741824, "features": ["layering"],
    "parent": {"pool": "images", "pool_namespace": "", "image": "5f0d", "snapshot": "snap", "trash": False},
}  # fmt: skip


def answer(monkeypatch: pytest.MonkeyPatch, status: int = 0, out: str = "", error: str = "") -> list[list[str]]:
    calls: list[list[str]] = []

    def run(command: tuple[str, ...], **_: Any) -> SimpleNamespace:
        calls.append([*command])
        return SimpleNamespace(returncode=status, stdout=out, stderr=error)

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_a_clone_and_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answer(monkeypatch, out=json.dumps(INFO))
    assert ceph_disk.describe("vms/x_disk", "nova") == {"parent": "images/5f0d"}
    assert calls == [["rbd", "--id", "nova", "info", "--format", "json", "vms/x_disk"]]
    answer(monkeypatch, out=json.dumps({key: INFO[key] for key in ("name", "size")}))
    assert ceph_disk.describe("vms/x_disk", "nova") == {"parent": ""}


def test_what_rbd_complains_about(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, 2, error="rbd: error opening image x_disk:\n (2) No such file or directory\n")
    found = ceph_disk.describe("vms/x_disk", "nova")
    assert found == {"problem": "rbd: error opening image x_disk: (2) No such file or directory"}
    answer(monkeypatch, 1)
    assert ceph_disk.describe("vms/x_disk", "nova") == {"problem": "rbd ended with status 1"}


def test_a_program_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise OSError("no rbd")

    monkeypatch.setattr(subprocess, "run", run)
    assert ceph_disk.describe("vms/x_disk", "nova") == {"problem": "no rbd"}
