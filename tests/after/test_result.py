# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Molecule ended well. Otherwise the end of this test's output says what failed: most of the log is far above it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

SCENARIO = os.environ.get("MOLECULE_SCENARIO_NAME", "default")
LOG = Path(__file__).resolve().parents[2] / ".cache" / "molecule" / f"{SCENARIO}.log"
# A failed task, or the failures of pytest. A task's result ends where the next line has no indentation.
FAILED_TASK = re.compile(r"^TASK \[[^\n]*\n(?:(?!TASK \[|PLAY ).*\n)*?(?:fatal|failed): .*\n(?:[ }].*\n|\n)*", re.M)
FAILED_TESTS = re.compile(r"^=+ (?:FAILURES|ERRORS) =+\n.*?^=+ .*(?:failed|error).* =+$", re.M | re.S)
LINES = 60


def last_failure(log: str) -> str:
    """Return the last failed task of a log, or the failed tests if there are some after it."""
    found = [match for pattern in (FAILED_TASK, FAILED_TESTS) for match in pattern.finditer(log)]
    if not found:
        return log
    return max(found, key=lambda match: match.start()).group()


def test_molecule_ended_well() -> None:
    if os.environ.get("MOLECULE_RESULT", "0") == "0":
        return
    lines = last_failure(LOG.read_text(errors="replace")).rstrip().splitlines()
    if len(lines) > LINES:
        lines = [*lines[: LINES // 2], "[...]", *lines[-LINES // 2 :]]
    pytest.fail("\n".join(lines), pytrace=False)
