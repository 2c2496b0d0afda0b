# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What the scenario's runs of site.yml said of how they verified the computes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SCENARIO = os.environ.get("MOLECULE_SCENARIO_NAME", "default")
LOG = Path(__file__).resolve().parents[2] / ".cache" / "molecule" / f"{SCENARIO}.log"


@pytest.mark.skipif(SCENARIO != "multihost", reason="only the scenario multihost has a compute without my_vm")
def test_the_run_that_changes_nothing_boots_no_further_guest() -> None:
    text = LOG.read_text(errors="replace")
    own, unchanged = "guests (checked with one of its own)", "guests (unchanged since one ran there)"
    assert unchanged in text, "no run said that a compute is unchanged since a guest ran there"
    assert own in text[: text.index(unchanged)]
