# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The callback plugin preload: a filter is loaded once in a run, not once in each task's worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[4]
PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Use the filter
      ansible.builtin.debug:
        msg: "{{ 'x' | shout }}"
    - name: Use the filter again
      ansible.builtin.debug:
        msg: "{{ 'y' | shout }}"
"""
FILTER = """
import os

with open(os.environ["LOADED"], "a") as stream:
    stream.write(f"{os.getpid()}\\n")


class FilterModule:
    def filters(self):
        return {"shout": str.upper}
"""


def loads(tmp_path: Path, callbacks: str) -> int:
    """How often two tasks load a filter with the callback plugins of a directory."""
    (tmp_path / "filters").mkdir()
    (tmp_path / "filters" / "shout.py").write_text(FILTER)
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    variables = {
        "ANSIBLE_CALLBACK_PLUGINS": callbacks,
        "ANSIBLE_FILTER_PLUGINS": str(tmp_path / "filters"),
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "LOADED": str(tmp_path / "loaded"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", str(tmp_path / "play.yml")],
        cwd=tmp_path,
        env=inherited | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert "X" in done.stdout and "Y" in done.stdout
    return len((tmp_path / "loaded").read_text().splitlines())


@pytest.mark.parametrize(("with_preload", "times"), [(True, 1), (False, 2)])
def test_filters_are_loaded_before_workers_are_forked(tmp_path: Path, with_preload: bool, times: int) -> None:
    callbacks = tmp_path / "callbacks"
    callbacks.mkdir()
    if with_preload:
        (callbacks / "preload.py").symlink_to(PROJECT / "plugins" / "callback" / "preload.py")
    assert loads(tmp_path, str(callbacks)) == times
