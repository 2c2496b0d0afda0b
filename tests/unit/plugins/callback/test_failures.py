# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Test the list of failures at the end of a run, with small playbooks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from plugins.callback import failures

PROJECT = Path(__file__).resolve().parents[4]
PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Change the host
      ansible.builtin.set_fact: {noted: true}
      changed_when: changes | default(false) | bool
    - name: Break some
      ansible.builtin.fail:
        msg: "the disk of {{ inventory_hostname[:1] }} is full"
      when: inventory_hostname in ['a1', 'a2']
    - name: Break and repair
      block:
        - ansible.builtin.fail: {msg: rescued}
      rescue:
        - ansible.builtin.debug: {msg: repaired}
    - name: Break and ignore
      ansible.builtin.fail: {msg: ignored}
      ignore_errors: true
"""


GOES_ON = "The next run goes on from there: nothing has to be undone."


def run(tmp_path: Path, *hosts: str, playbook: str = "site.yml", arguments: tuple[str, ...] = ()) -> str:
    (tmp_path / playbook).write_text(PLAYBOOK)
    inventory = "".join(f"{host} ansible_connection=local\n" for host in hosts)
    (tmp_path / "hosts").write_text(inventory + "gone ansible_host=127.0.0.1 ansible_port=9\n" * ("gone" in hosts))
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", "hosts", *arguments, playbook],
        cwd=tmp_path,
        env=os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def test_hosts_with_the_same_failure_are_one_entry(tmp_path: Path) -> None:
    # Nothing changed, so that nothing is said of the next run.
    text = run(tmp_path, "a1", "a2", "b1").partition("HOSTS THAT FAILED")[2]
    assert text.splitlines()[1:] == [
        "a1, a2: Break some",
        "    the disk of a is full",
    ]


@pytest.mark.parametrize(
    ("playbook", "arguments", "said"),
    [
        ("site.yml", ("-e", "changes=true"), True),
        ("site.yml", ("-e", "changes=true", "--check"), False),
        ("status.yml", ("-e", "changes=true"), False),
    ],
    ids=["changed", "dry run", "status"],
)
def test_a_deployment_that_changed_hosts_goes_on(
    tmp_path: Path, playbook: str, arguments: tuple[str, ...], said: bool
) -> None:
    text = run(tmp_path, "a1", playbook=playbook, arguments=arguments).partition("HOSTS THAT FAILED")[2]
    assert "a1: Break some" in text
    assert (GOES_ON in text) == said


def test_new_secrets_are_no_change_of_hosts() -> None:
    plugin = failures.CallbackModule()
    for action, changed in (("secrets_file", False), ("config_files", True)):
        result = SimpleNamespace(task=SimpleNamespace(action=action), is_changed=lambda: True)
        plugin.v2_runner_on_ok(result)
        assert plugin.hosts_changed == changed


def test_nothing_is_listed_when_nothing_failed(tmp_path: Path) -> None:
    text = run(tmp_path, "b1", "b2")
    assert "rescued=1" in text
    assert "HOSTS THAT FAILED" not in text


@pytest.mark.parametrize(
    ("result", "lines"),
    [
        ({"msg": "a\nb"}, ["a", "b"]),
        ({"msg": "\n".join("abcdefgh")}, ["a", "b", "c", "d", "e", "f", "(2 more lines above)"]),
        ({"msg": "One or more items failed", "results": [{"msg": "ok"}, {"failed": True, "msg": "why"}]}, ["why"]),
        ({"stderr": "why\n"}, ["why"]),
        ({"msg": "non-zero return code", "stderr": "", "stdout": "a\nwhy\n"}, ["non-zero return code", "a", "why"]),
        ({}, ["no message"]),
    ],
)
def test_cause(result: dict[str, object], lines: list[str]) -> None:
    assert failures.cause(result) == lines
