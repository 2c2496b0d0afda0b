# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""How preflight reports problems, and its place in site.yml."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from plugins.action.preflight import report

PROJECT = Path(__file__).resolve().parents[4]


def test_report_has_every_problem() -> None:
    assert report("node1", ["First.", "Second."], ["Slow."]) == (
        "2 problems on host node1. Nothing has been changed.\n  1. First.\n  2. Second.\n  Note: Slow."
    )
    assert report("node1", ["First."], []) == "1 problem on host node1. Nothing has been changed.\n  1. First."


def run_preflight(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the beginning of site.yml with arguments."""
    command = [sys.executable, "-m", "ansible", "playbook", "playbooks/preflight.yml", *arguments]
    environment = os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


def test_an_inventory_without_a_controller_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all:\n  children:\n    controller:\n    compute:\n")
    done = run_preflight("-i", str(tmp_path), "--check")
    assert done.returncode == 2
    assert "The group controller has no host" in done.stdout
    assert not (tmp_path / "group_vars").exists()


def test_a_list_of_hosts_is_refused() -> None:
    done = run_preflight("-i", "ctl1,", "--check")
    assert done.returncode == 2
    assert "The inventory ctl1, is no file or directory" in done.stdout


@pytest.mark.parametrize(
    ("groups", "hostvars", "expected"),
    [
        ({"all": ["a", "ctl1"], "controller": ["ctl1"]}, {"a": {"cloud_compute_batch": 1}, "ctl1": {}}, "100%"),
        ({"all": ["a", "ctl1"], "controller": ["ctl1"]}, {"a": {}, "ctl1": {"cloud_compute_batch": 3}}, "3"),
        ({"all": [], "controller": []}, {"localhost": {}}, "100%"),
        ({"all": []}, {"localhost": {}}, "100%"),
    ],
)
def test_batches_are_read_from_the_controller(groups: Any, hostvars: Any, expected: str) -> None:
    (serial,) = [play["serial"] for play in yaml.safe_load((PROJECT / "site.yml").read_text()) if "serial" in play]
    templar = Templar(loader=DataLoader(), variables={"groups": groups, "hostvars": hostvars})
    assert str(templar.template(trust_as_template(serial))) == expected
