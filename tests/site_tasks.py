# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The tasks of site.yml as ansible-playbook lists them, read once for all tests."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


@functools.cache
def listed(inventory: str) -> subprocess.CompletedProcess[str]:
    """Run ``ansible-playbook --list-tasks site.yml`` on an inventory of the project."""
    command = [sys.executable, "-m", "ansible", "playbook", "-i", inventory, "--list-tasks", "site.yml"]
    environment = os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    # Ansible refuses a standard input that does not block, which a runner may hand down.
    done = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return done
