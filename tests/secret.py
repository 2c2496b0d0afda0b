# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Secrets that a failing test does not print."""

from __future__ import annotations

from collections.abc import Mapping


class Secret(str):
    """A secret. Pytest prints arguments of a test that fails, and of fixtures, by their representation."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'<secret>'"


def secrets_of(found: Mapping[str, object]) -> dict[str, str]:
    """Return the texts of a secrets file by name, without empty ones."""
    return {name: Secret(value) for name, value in found.items() if isinstance(value, str) and value}
