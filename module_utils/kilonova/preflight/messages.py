# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The common form of preflight's messages.

Every check takes plain data and returns messages. C(facts) is what the module preflight_facts returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]
HIDDEN = "(hidden)"


def message(variable: str, value: object, why: str, instead: str) -> str:
    """Return a problem with its variable, its value (HIDDEN for a secret), the reason, and what to write instead."""
    shown = HIDDEN if value == HIDDEN else repr(value)
    return f"{variable} = {shown}: {why}. {instead}."
