# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Playbooks of tools parse with the roles of the project. site.yml does not import them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
PLAYBOOKS = sorted(PROJECT.glob("tools/*/*.yml"))


def test_there_are_playbooks() -> None:
    assert len(PLAYBOOKS) > 1


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_playbook_parses(playbook: Path) -> None:
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "inventory/lab", "--syntax-check", str(playbook)]
    environment = os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")}
    done = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
