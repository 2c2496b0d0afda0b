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
FAILURES = (
    re.compile(r"^TASK \[[^\n]*\n(?:(?!TASK \[|PLAY ).*\n)*?(?:fatal|failed): .*\n(?:[ }].*\n|\n)*", re.M),
    re.compile(r"^=+ (?:FAILURES|ERRORS) =+\n.*?^=+ .*(?:failed|error).* =+$", re.M | re.S),
)
STEP = re.compile(r"^INFO .* Executing$", re.M)
# What -vvv adds to a failed task.
INVOCATION = re.compile(r"^    invocation:\n(?: {8,}.*\n)*", re.M)
LINES = 60


def last_failure(log: str) -> list[str]:
    """Return the last failure in the last step of a log, or its last lines. In earlier steps, failures were wanted."""
    begin = max((match.end() for match in STEP.finditer(log)), default=0)
    found = [match for pattern in FAILURES for match in pattern.finditer(log, begin)]
    if not found:
        return log.splitlines()[-LINES:]
    lines = INVOCATION.sub("", max(found, key=lambda match: match.start()).group()).splitlines()
    return lines if len(lines) <= LINES else [*lines[: LINES // 2], "[...]", *lines[-LINES // 2 :]]


def test_molecule_ended_well() -> None:
    if os.environ.get("MOLECULE_RESULT", "0") != "0":
        pytest.fail("\n".join(last_failure(LOG.read_text(errors="replace"))), pytrace=False)
