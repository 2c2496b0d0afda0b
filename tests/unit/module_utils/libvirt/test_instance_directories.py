# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Only what an evacuation left is removed: never a disk, a guest of libvirt, or one that is being made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible.module_utils.kilonova.libvirt.instance_directories import left_over

GUEST = "2a3f7c7e-6a0c-4c53-b9c4-65c0a2a3a1de"
OLD, STARTED, NEW = 1000.0, 2000.0, 3000.0


def make(root: Path, name: str, files: tuple[str, ...], changed: float) -> str:
    directory = root / name
    directory.mkdir()
    for file in files:
        (directory / file).touch()
        os.utime(directory / file, (changed, changed))
    os.utime(directory, (changed, changed))
    return str(directory)


@pytest.mark.parametrize("files", [("console.log",), (), ("console.log", "console.log.0")])
def test_what_an_evacuation_left(tmp_path: Path, files: tuple[str, ...]) -> None:
    assert left_over(str(tmp_path), (), STARTED) == []
    path = make(tmp_path, GUEST, files, OLD)
    assert left_over(str(tmp_path), (), STARTED) == [path]


@pytest.mark.parametrize(
    ("name", "files", "changed"),
    [
        (GUEST, ("console.log", "disk"), OLD),
        (GUEST, ("disk.config",), OLD),
        (GUEST, ("console.log",), NEW),
        (f"{GUEST}_resize", ("console.log",), OLD),
        ("_base", (), OLD),
        ("locks", (), OLD),
    ],
)
def test_what_stays(tmp_path: Path, name: str, files: tuple[str, ...], changed: float) -> None:
    make(tmp_path, name, files, changed)
    assert left_over(str(tmp_path), (), STARTED) == []


def test_a_guest_of_libvirt_stays(tmp_path: Path) -> None:
    make(tmp_path, GUEST, ("console.log",), OLD)
    assert left_over(str(tmp_path), {GUEST}, STARTED) == []


def test_no_directory_at_all(tmp_path: Path) -> None:
    assert left_over(str(tmp_path / "absent"), (), STARTED) == []
