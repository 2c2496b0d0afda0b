# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What files and arguments are made of has the same order in every run, or each run would change them."""

from __future__ import annotations

import re
from pathlib import Path

ROLES = Path(__file__).resolve().parents[3] / "roles"
# Their results are in the order of a Python set, which differs from process to process.
SETS = re.compile(r"\|\s*(difference|symmetric_difference|union)\b")


def test_nothing_that_is_written_has_the_order_of_a_set() -> None:
    files = [*ROLES.glob("*/vars/*.yml"), *ROLES.glob("*/vars/main/*.yml"), *ROLES.glob("*/defaults/*.yml")]
    files += [*ROLES.glob("*/defaults/main/*.yml"), *ROLES.glob("*/templates/*"), *ROLES.parent.glob("templates/*")]
    assert len(files) > 100
    found = [
        f"{path.relative_to(ROLES)}: {line.strip()}"
        for path in files
        if path.is_file() and not path.is_symlink()
        for line in path.read_text().splitlines()
        if SETS.search(line)
    ]
    assert found == [], "reject('in', ...) and unique keep the order"
