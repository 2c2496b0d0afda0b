# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Test where failures are ignored: in the drift report, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[3]
IN_THE_REPORT = "{{ cloud_reports_drift }}"
SHARED = PROJECT / "roles" / "common" / "vars" / "main" / "common.yml"
PLAYS: dict[str, dict[str, Any]] = {
    f"{path.relative_to(PROJECT)}: {play['name']}": play
    for path in (PROJECT / "site.yml", *sorted((PROJECT / "playbooks").glob("*.yml")))
    for play in yaml.safe_load(path.read_text())
    if "hosts" in play
}


def test_a_failure_ends_no_play_of_the_report() -> None:
    names = [name for name in PLAYS if name.startswith("site.yml: ")] + ["playbooks/preflight.yml: Check services"]
    assert len(names) > 5
    assert [name for name in names if PLAYS[name].get("ignore_errors") != IN_THE_REPORT] == []


def test_only_the_report_ignores_failures() -> None:
    condition = yaml.safe_load(SHARED.read_text())["cloud_reports_drift"]
    assert condition == "{{ ansible_check_mode and report_drift | default(false) }}"


def test_deployments_ignore_nothing() -> None:
    found = {name: play["ignore_errors"] for name, play in PLAYS.items() if "ignore_errors" in play}
    assert set(found.values()) == {IN_THE_REPORT}
    # Where any_errors_fatal asks for it, Ansible takes an expression for true without computing it.
    assert [name for name in found if "any_errors_fatal" in PLAYS[name]] == []
    files = [*sorted((PROJECT / "roles").rglob("tasks/*.yml")), *sorted((PROJECT / "playbooks/tasks").glob("*.yml"))]
    assert len(files) > 20
    for word in ("ignore_errors", "any_errors_fatal"):
        assert [str(path) for path in files if word in path.read_text()] == []
    assert [name for name, play in PLAYS.items() if "ignore_errors" in str(play.get("tasks"))] == []
