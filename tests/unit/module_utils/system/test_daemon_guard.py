# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The guard against starting daemons, in every state of an interruption."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible.module_utils.kilonova.system import daemon_guard

OTHER = "#!/bin/sh\nexit 101\n"


@pytest.fixture
def root(tmp_path: Path) -> str:
    """The root of a made-up host, as a prefix of paths."""
    (tmp_path / "usr" / "sbin").mkdir(parents=True)
    return f"{tmp_path}/"


def guard(root: str) -> str | None:
    path = Path(root, daemon_guard.GUARD)
    return path.read_text() if path.exists() else None


def test_guard_is_raised_and_lowered(root: str) -> None:
    with daemon_guard.guarded(root):
        done = subprocess.run([Path(root, daemon_guard.GUARD)], check=False)
        assert done.returncode == 101
    assert os.listdir(f"{root}usr/sbin") == []


def test_guard_of_the_host_is_put_back(root: str) -> None:
    Path(root, daemon_guard.GUARD).write_text(OTHER)
    with daemon_guard.guarded(root):
        assert guard(root) == daemon_guard.GUARD_TEXT
        assert daemon_guard.guard_left(root)
    assert not daemon_guard.guard_left(root)
    assert guard(root) == OTHER
    assert os.listdir(f"{root}usr/sbin") == ["policy-rc.d"]


@pytest.mark.parametrize("before", [None, OTHER])
def test_guard_after_a_kill_at_every_step(root: str, before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """After any of its renames, a killed module leaves what the next call can undo."""
    path, rename, renames = Path(root, daemon_guard.GUARD), os.rename, 0
    for last in range(5):
        path.unlink(missing_ok=True)
        if before:
            path.write_text(before)
        renames = 0

        class Killed(Exception):
            pass

        def counted(source: str, target: str, last: int = last, killed: type[Exception] = Killed) -> None:
            nonlocal renames
            if renames == last:
                raise killed
            renames += 1
            rename(source, target)

        monkeypatch.setattr(os, "rename", counted)
        try:
            daemon_guard.raise_guard(root)
            daemon_guard.lower_guard(root)
        except Killed:
            pass
        monkeypatch.setattr(os, "rename", rename)
        daemon_guard.lower_guard(root)
        assert guard(root) == before
        assert os.listdir(f"{root}usr/sbin") == (["policy-rc.d"] if before else [])
        assert not daemon_guard.lower_guard(root)
    assert renames == (3 if before else 1)


def test_the_policy_file_of_the_host_is_not_the_guard(root: str) -> None:
    Path(root, daemon_guard.GUARD).write_text(OTHER)
    assert not daemon_guard.guard_is_ours(root)
    assert not daemon_guard.lower_guard(root)
    assert guard(root) == OTHER
