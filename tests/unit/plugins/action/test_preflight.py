# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""How preflight reports problems, and its place in site.yml."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from plugins.action.preflight import report
from tests.render import rendering

PROJECT = Path(__file__).resolve().parents[4]


def test_report_has_every_problem() -> None:
    assert report("node1", ["First.", "Second."], ["Slow."]) == (
        "2 problems on host node1. Nothing has been changed.\n  1. First.\n  2. Second.\n  Note: Slow."
    )
    assert report("node1", ["First."], []) == "1 problem on host node1. Nothing has been changed.\n  1. First."


def run_site(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run site.yml with arguments."""
    command = [sys.executable, "-m", "ansible", "playbook", "site.yml", *arguments]
    environment = os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


@functools.cache
def listed_tasks() -> str:
    """All tasks of site.yml with their tags."""
    done = run_site("-i", "inventory/example", "--list-tasks")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_inventory_without_a_controller_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all:\n  children:\n    controller:\n    compute:\n")
    done = run_site("-i", str(tmp_path), "--check")
    assert done.returncode == 2
    assert "The group controller has no host" in done.stdout
    assert not (tmp_path / "group_vars").exists()


def test_a_list_of_hosts_is_refused() -> None:
    done = run_site("-i", "ctl1,", "--check")
    assert done.returncode == 2
    assert "The inventory ctl1, is no file or directory" in done.stdout


def test_secrets_are_generated_after_preflight() -> None:
    assert 0 < listed_tasks().index("preflight : Check the host") < listed_tasks().index("Generate missing secrets")


def test_all_tags_are_known() -> None:
    used = {tag for tags in re.findall(r"TAGS: \[(.*)\]", listed_tasks()) for tag in tags.split(", ") if tag}
    expression = yaml.safe_load((PROJECT / "roles/preflight/vars/main.yml").read_text())["preflight_known_tags"]
    sample = rendering.load("all_in_one")
    known = sample.templar("cloud1").template(trust_as_template(expression))
    assert len(used) > 15
    assert used - {*known} == set()


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
