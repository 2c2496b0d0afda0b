# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The callback plugin prebuild, in a run of Ansible that says what it loads and when."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Use filters and tests of Ansible's and a filter of the project's
      ansible.builtin.debug:
        msg: "{{ [1] | ansible.builtin.flatten | map('string') | first }}{{ 'x@' | oslo_value }}"
      when: 1 is ansible.builtin.number
"""


def test_what_every_task_needs_is_loaded_before_the_first_one(tmp_path: Path) -> None:
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    variables = {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_DEBUG": "1", "ANSIBLE_LOCALHOST_WARNING": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", str(tmp_path / "play.yml")],
        env=inherited | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    loaded = r"Loading (?:FilterModule|TestModule|ActionModule) '[^']*' from (\S+\.py)(?! \(found_in_cache=True)"
    before, begins, task = done.stdout.partition(" in run() - task ")
    assert begins and "ok: [localhost]" in task
    # What a worker looks up again and finds in memory counts for nothing.
    early = set(re.findall(loaded, before))
    assert {Path(path).name for path in early} >= {"core.py", "cloud.py", "config_files.py"}
    assert {path for path in re.findall(loaded, task) if "/filter/" in path or "/test/" in path} == set()
