# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A clock for plugins that wait for hosts."""

from __future__ import annotations

import pytest
from ansible.module_utils.kilonova.network import confirmation


class Clock:
    """Time that passes by sleeping only, so that no test depends on how busy the computer is."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(confirmation, "time", made)
    return made
