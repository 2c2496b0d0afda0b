# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What a run changed, and the report of a dry run, from Ansible itself running small playbooks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import drift_report as documented
import pytest

from plugins.action.drift_report import verdict
from plugins.callback.changes import entries, items, report

PROJECT = Path(__file__).resolve().parents[4]
PLAYBOOK = """
- name: Deploy
  hosts: all
  gather_facts: false
  tasks:
    - name: Write files
      config_files:
        files:
          - {{dest: {directory}/kept, content: same, owner: "{uid}", group: "{gid}"}}
          - {{dest: {directory}/new, content: text, owner: "{uid}", group: "{gid}"}}
    - name: Do nothing
      ansible.builtin.command: "true"
      changed_when: false
    - name: Change things by the item
      ansible.builtin.file:
        path: "{directory}/{{{{ item }}}}"
        state: directory
        mode: "0700"
      loop: [one, two]
    - name: Change a secret
      ansible.builtin.copy: {{dest: {directory}/secret, content: hidden, mode: "0600"}}
      no_log: true
- name: Report
  hosts: all
  gather_facts: false
  tasks:
    - name: Say what differs
      drift_report:
      run_once: true
"""


def run(tmp_path: Path, *arguments: str, record: str = "") -> subprocess.CompletedProcess[str]:
    (tmp_path / "play.yml").write_text(PLAYBOOK.format(directory=tmp_path, uid=os.getuid(), gid=os.getgid()))
    (tmp_path / "kept").write_text("same\n")
    (tmp_path / "kept").chmod(0o644)
    environment = {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    environment["KILONOVA_CHANGES_FILE"] = record
    python = f"ansible_python_interpreter={sys.executable}"
    return subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", "a1,", "-c", "local", "-e", python, "play.yml", *arguments],
        cwd=tmp_path,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_dry_run_that_finds_differences_fails_with_the_list(tmp_path: Path) -> None:
    done = run(tmp_path, "--check", record=str(tmp_path / "sub" / "record.json"))
    assert done.returncode == 2, done.stdout
    text = " ".join(done.stdout.split())
    assert "4 differences from the inventory on 1 host. site.yml" in text
    assert done.stdout.partition("DIFFERENCES")[2].splitlines()[1:] == [
        "a1",
        "  Write files",
        f"    {tmp_path}/new",
        "  Change things by the item",
        f"    {tmp_path}/one",
        f"    {tmp_path}/two",
        "  Change a secret",
        "    Change a secret",
    ]
    assert "hidden" not in text
    # Finding differences is what it is for, and no failure to look.
    assert "HOSTS THAT FAILED" not in done.stdout
    record = json.loads((tmp_path / "sub" / "record.json").read_text())
    assert [entry["task"] for entry in record] == ["Write files", "Change things by the item", "Change a secret"]
    assert not (tmp_path / "new").exists()


def test_nothing_to_say_is_no_failure(tmp_path: Path) -> None:
    assert run(tmp_path).returncode == 2
    done = run(tmp_path, "--check")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"changed_files": ["/a", "/b"]}, ["/a", "/b"]),
        ({"changes": ["create database nova"]}, ["create database nova"]),
        (
            {
                "started": ["x.service"],
                "restarted": [{"name": "y.service", "reason": "/etc/y changed"}],
                "enabled": ["x.service", "z.service"],
            },
            ["start x.service", "restart y.service", "enable z.service"],
        ),
        (
            {"missing": ["nova-doc"], "repaired": ["dpkg had not finished 2 packages"], "lists_updated": False},
            ["install nova-doc", "dpkg had not finished 2 packages"],
        ),
        ({"missing": ["cmp1"], "hosts": ["cmp1"]}, ["map cmp1 to its cell"]),
        ({"msg": "whatever"}, ["The task"]),
        ({"changed_files": []}, ["The task"]),
    ],
)
def test_a_result_says_what_changed(result: dict[str, Any], expected: list[str]) -> None:
    assert items(result, "The task") == expected


def test_what_could_not_be_looked_at_is_an_entry_of_its_own() -> None:
    result = {"changed": False, "not_looked_at": "MariaDB could not be looked at: it is down"}
    record = entries("ctl1", "Create databases", result)
    assert record == [{"host": "ctl1", "task": "Create databases", "not_looked_at": result["not_looked_at"]}]
    assert verdict(record).startswith("1 part that could not be looked at on 1 host.")
    assert report(record) == ["ctl1", "  NOT LOOKED AT: MariaDB could not be looked at: it is down"]


def test_files_of_other_modules_are_named() -> None:
    assert items({"dest": "/a"}, "The task") == ["/a"]
    assert items({"path": "/b"}, "The task") == ["/b"]


def test_hosts_come_together_in_the_report() -> None:
    record = [
        {"host": "cmp1", "task": "A", "items": ["x"]},
        {"host": "cmp2", "task": "A", "items": ["x"]},
        {"host": "cmp1", "task": "B", "items": ["y", "z"]},
    ]
    assert report(record) == ["cmp1", "  A", "    x", "  B", "    y", "    z", "cmp2", "  A", "    x"]
    assert verdict(record).startswith("4 differences from the inventory on 2 hosts.")
    assert verdict([]) == ""


def test_the_module_refers_to_its_action_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    from ansible.module_utils.testing import patch_module_args

    with patch_module_args({}), pytest.raises(SystemExit):
        documented.main()
    assert "works through its action plugin" in capsys.readouterr().out


def test_nothing_is_written_where_the_name_of_the_record_is_empty(tmp_path: Path) -> None:
    done = run(tmp_path, "--check", record="")
    assert done.returncode == 2, done.stdout
    assert "Callback dispatch" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "play.yml"]
