# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What counts as an acknowledged write, and as a lost one."""

from __future__ import annotations

import pytest

from tools import api_writes
from tools.api_writes import PREFIX, Kind


def test_only_success_is_an_acknowledgement() -> None:
    kind = Kind("keypair")
    for number, answer in enumerate((200, 201, 503, "TimeoutError", 503, 204)):
        kind.add(number, answer)
    assert kind.acknowledged == [0, 1, 5]
    assert kind.failed == {"503": 2, "TimeoutError": 1}


def test_the_longest_time_without_an_acknowledgement(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((1.0, 2.0, 4.0, 9.0, 10.0))
    monkeypatch.setattr(api_writes.time, "monotonic", lambda: next(clock))
    kind = Kind("port")
    for answer in (201, 201, 500, 201, 201):
        kind.add(1, answer)
    assert kind.longest == 7.0


def test_an_acknowledged_write_that_is_not_there_is_lost() -> None:
    assert api_writes.lost([1, 2, 3], {f"{PREFIX}1": object(), f"{PREFIX}3": object()}) == [2]
    assert api_writes.lost([1, 2], 2) == []
    assert api_writes.lost([1, 900], 500) == [900]
