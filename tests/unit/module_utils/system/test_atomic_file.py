# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible.module_utils.kilonova.system.atomic_file import replace


def test_replaces_content_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o600)
    reader = path.open()
    replace(path, "new\n", mode=0o644)
    assert path.read_text() == "new\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert reader.read() == "old", "the old file was changed in place"
    assert os.listdir(tmp_path) == ["file"]


def test_is_private_by_default(tmp_path: Path) -> None:
    replace(tmp_path / "file", b"\x00secret")
    assert (tmp_path / "file").read_bytes() == b"\x00secret"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(LookupError):
        replace(path, "new", owner="no-such-user")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
