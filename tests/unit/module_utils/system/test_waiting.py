# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""How often is looked for what is wanted."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.kilonova.system.waiting import look_until


@pytest.mark.parametrize(
    ("check_mode", "timeout", "found"), [(False, 60, 3), (False, 0, 1), (True, 60, 1)], ids=["in time", "late", "check"]
)
def test_what_is_wanted_comes_at_the_third_look(check_mode: bool, timeout: float, found: int) -> None:
    module: Any = SimpleNamespace(check_mode=check_mode)
    looks = iter(range(1, 10))
    deadline = time.monotonic() + timeout
    assert look_until(module, lambda: next(looks), lambda look: look == 3, deadline, 0) == found
