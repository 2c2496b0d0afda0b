# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the unit tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from ansible.module_utils.kilonova.system import locks


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Give each test the umask that the run began with; a module may set its own, since its process ends with it."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def lock_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules' locks are in /run, where this user may not write and another run of the tests would be met."""
    monkeypatch.setattr(locks, "DIRECTORY", str(tmp_path_factory.mktemp("run")))
