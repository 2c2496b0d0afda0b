# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Test that the templar of these tests works each variable out once, which makes them quick."""

from __future__ import annotations

from itertools import count
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import trust_as_template

from tests.render.templating import templar_with


def test_each_variable_is_worked_out_once() -> None:
    numbers = count(1)
    variables: dict[str, Any] = {
        "draw": lambda: next(numbers),
        "unused": trust_as_template("{{ draw() }}"),
        "inner": trust_as_template("{{ draw() }}"),
        "outer": trust_as_template("{{ [inner, inner] }}"),
    }
    templar = templar_with(DataLoader(), variables)
    both = trust_as_template("{{ [outer, inner] }}")
    assert templar.template(both) == [[1, 1], 1]
    copy = templar.copy_with_new_env(available_variables=templar.available_variables)
    assert copy.template(both) == [[1, 1], 1]
    assert next(numbers) == 2
