# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The runs of a scenario verify computes without needless guests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SCENARIO = os.environ.get("MOLECULE_SCENARIO_NAME", "default")
LOG = Path(__file__).resolve().parents[2] / ".cache" / "molecule" / f"{SCENARIO}.log"


@pytest.mark.skipif(SCENARIO != "multihost", reason="only the scenario multihost has a compute without my_vm")
def test_a_run_without_changes_boots_no_guest() -> None:
    text = LOG.read_text(errors="replace")
    own, unchanged = "guests (checked with one of its own)", "guests (unchanged since one ran there)"
    assert unchanged in text, "no run reported that a compute is unchanged since a guest ran there"
    assert own in text[: text.index(unchanged)]
