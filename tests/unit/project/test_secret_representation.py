# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What pytest prints of a failing test names no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

FAILING = """
import pytest
from tests.secret import secrets_of

@pytest.fixture
def secrets():
    return secrets_of({"nova_password": "correct horse", "ceph_seed": "battery staple", "nothing": "", "list": []})

def test_fails(secrets):
    seed = secrets["ceph_seed"]
    assert set(secrets) == {"nova_password", "ceph_seed"}
    assert len(seed) == len(secrets["nova_password"])
"""


def test_a_failing_test_prints_no_secret(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_fails.py").write_text(FAILING)
    assert pytest.main(["-p", "no:cacheprovider", "--noconftest", "-vv", "-l", str(tmp_path)]) == 1
    printed = capfd.readouterr().out
    assert "1 failed" in printed and "<secret>" in printed
    assert "correct horse" not in printed and "battery staple" not in printed
