# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Test the record of changes and the drift report with Ansible running small playbooks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import drift_report as documented
import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[4]
# As in site.yml and role common.
GO_ON = next(play["ignore_errors"] for play in yaml.safe_load((PROJECT / "site.yml").read_text()) if "hosts" in play)
SHARED = yaml.safe_load((PROJECT / "roles" / "common" / "vars" / "main" / "common.yml").read_text())
DEPLOY = """
- name: Deploy
  hosts: all
  gather_facts: false
  ignore_errors: "{go_on}"
  roles: [shared]
  tasks:
    - name: Write files
      config_files:
        files:
          - {{dest: {directory}/kept, content: same, owner: "{uid}", group: "{gid}"}}
          - {{dest: {directory}/new, content: text, owner: "{uid}", group: "{gid}"}}
        secrets: "{{{{ nothing | default([]) }}}}"
      when: not unchanged | default(false) | bool
    - name: Write to a directory
      config_files:
        files:
          - {{dest: {directory}/sub, content: text, owner: "{uid}", group: "{gid}"}}
      when: needs_you | default(false) | bool
    - name: Break the database
      ansible.builtin.fail: {{msg: "no socket\\nlogs"}}
      when: inventory_hostname in broken | default([])
    - name: Break secretly
      ansible.builtin.fail: {{msg: hidden}}
      no_log: true
      when: inventory_hostname in broken | default([])
    - name: Do nothing
      ansible.builtin.command: "true"
      changed_when: false
    - name: Change things by the item
      act: {{path: "{directory}/{{{{ item }}}}"}}
      loop: [one, two]
      when: not unchanged | default(false) | bool
    - name: Change a secret
      act: {{path: {directory}/secret, content: hidden}}
      no_log: true
      when: not unchanged | default(false) | bool
"""
# Returns what a module returns that would change a file. A module's Python takes longer to start than all of this.
ACTION = """
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        return {"changed": True, **self._task.args}
"""
DRIFT = """
- name: Predict changes
  import_playbook: deploy.yml
  vars: {report_drift: true}
- name: Report
  hosts: all
  gather_facts: false
  tasks:
    - name: Compare hosts
      drift_report: {needs_you: "{{ compared }}"}
      when: compared is defined
    - name: Report drift
      drift_report:
"""


def run(
    tmp_path: Path, *arguments: str, playbook: str = "drift.yml", hosts: str = "a1,", **variables: Any
) -> subprocess.CompletedProcess[str]:
    paths = {"directory": tmp_path, "uid": os.getuid(), "gid": os.getgid()}
    (tmp_path / "deploy.yml").write_text(DEPLOY.format(go_on=GO_ON, **paths))
    (tmp_path / "drift.yml").write_text(DRIFT)
    (tmp_path / "action_plugins").mkdir(exist_ok=True)
    (tmp_path / "action_plugins" / "act.py").write_text(ACTION)
    shared = tmp_path / "roles" / "shared" / "vars"
    shared.mkdir(parents=True, exist_ok=True)
    (shared / "main.yml").write_text(json.dumps({"cloud_reports_drift": SHARED["cloud_reports_drift"]}))
    (tmp_path / "kept").write_text("same\n")
    (tmp_path / "kept").chmod(0o644)
    (tmp_path / "sub").mkdir(exist_ok=True)
    record = str(variables.pop("record", ""))
    environment = {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    environment["KILONOVA_CHANGES_FILE"] = record
    extra = json.dumps({"ansible_python_interpreter": sys.executable, "ansible_connection": "local", **variables})
    return subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", hosts, "-e", extra, playbook, *arguments],
        cwd=tmp_path,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def section(done: subprocess.CompletedProcess[str], title: str) -> list[str]:
    """Return the lines below a banner."""
    found = re.search(rf"^{title} \*+\n((?:.+\n)*)", done.stdout, re.M)
    return found[1].splitlines() if found else []


def test_differences_end_a_dry_run_with_2_and_a_list(tmp_path: Path) -> None:
    done = run(tmp_path, "--check", record=tmp_path / "records" / "record.json")
    assert done.returncode == 2, done.stdout
    *lines, verdict = section(done, "DRIFT")
    assert lines == [
        "a1",
        "  Write files",
        f"    {tmp_path}/new",
        "  Change things by the item",
        f"    {tmp_path}/one",
        f"    {tmp_path}/two",
        "  Change a secret",
        "    Change a secret",
    ]
    assert verdict.startswith("4 differences from the inventory on 1 host. site.yml")
    assert "hidden" not in done.stdout
    # Differences are what the report is for, not failures.
    assert "HOSTS THAT FAILED" not in done.stdout
    record = json.loads((tmp_path / "records" / "record.json").read_text())
    assert [entry["task"] for entry in record] == ["Write files", "Change things by the item", "Change a secret"]
    assert not (tmp_path / "new").exists()


def test_no_difference_ends_with_0(tmp_path: Path) -> None:
    done = run(tmp_path, "--check", unchanged=True)
    assert done.returncode == 0, done.stdout
    assert section(done, "DRIFT") == ["Nothing differs from the inventory."]


def test_what_needs_you_alone_ends_with_2(tmp_path: Path) -> None:
    done = run(tmp_path, "--check", unchanged=True, needs_you=True)
    assert done.returncode == 2, done.stdout
    assert [line for line in section(done, "DRIFT") if line.startswith(f"  needs you: {tmp_path}/sub")]


def test_what_concerns_several_hosts_needs_you(tmp_path: Path) -> None:
    done = run(tmp_path, "--check", unchanged=True, compared=["both have it"])
    assert done.returncode == 2, done.stdout
    assert section(done, "DRIFT") == ["a1", "  needs you: both have it", "1 thing that needs you on 1 host."]
    done = run(tmp_path, "--check", unchanged=True, compared=[])
    assert done.returncode == 0, done.stdout


def test_a_plain_dry_run_shows_what_needs_you(tmp_path: Path) -> None:
    done = run(tmp_path, "--check", playbook="deploy.yml", needs_you=True)
    assert done.returncode == 0, done.stdout
    host, line = section(done, "NEEDS ATTENTION")
    assert host == "a1" and line.startswith(f"  needs you: {tmp_path}/sub")
    assert "DRIFT" not in done.stdout


def test_a_failure_ends_with_4_and_hides_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "--check", hosts="a1,a2", broken=["a1"])
    assert done.returncode == 4, done.stdout
    lines = section(done, "DRIFT")
    assert [line for line in lines if not line.startswith("    ")] == [
        "a1",
        "  Write files",
        "  Change things by the item",
        "  Change a secret",
        "  could not look: no socket (Break the database)",
        "  could not look: hidden by no_log (Break secretly)",
        "a2",
        "  Write files",
        "  Change things by the item",
        "  Change a secret",
        lines[-1],
    ]
    assert "2 parts that could not be looked at" in lines[-1]
    assert "HOSTS THAT FAILED" not in done.stdout
    # Without a name for the record, nothing is written.
    assert "Callback dispatch" not in done.stderr
    written = {"action_plugins", "deploy.yml", "drift.yml", "kept", "roles", "sub"}
    assert {path.name for path in tmp_path.iterdir()} == written


def test_a_host_that_does_not_answer_ends_with_4(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts"
    inventory.write_text("gone ansible_host=127.0.0.1 ansible_port=9\n")
    done = run(tmp_path, "--check", hosts=str(inventory), ansible_connection="ssh", unchanged=True)
    assert done.returncode == 4, done.stdout
    host, line, end = section(done, "DRIFT")
    assert host == "gone" and line.startswith("  could not look: ")
    assert end == "The run ended before everything was compared."


@pytest.mark.parametrize(
    ("playbook", "arguments"), [("deploy.yml", ["--check"]), ("deploy.yml", []), ("drift.yml", [])]
)
def test_only_the_drift_report_ignores_failures(tmp_path: Path, playbook: str, arguments: list[str]) -> None:
    done = run(tmp_path, *arguments, playbook=playbook, hosts="a1,a2", broken=["a1"])
    assert done.returncode == 2, done.stdout
    assert "...ignoring" not in done.stdout
    assert section(done, "HOSTS THAT FAILED")[0] == "a1: Break the database"


def test_the_module_refers_to_its_action_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    from ansible.module_utils.testing import patch_module_args

    with patch_module_args({}), pytest.raises(SystemExit):
        documented.main()
    assert "works through its action plugin" in capsys.readouterr().out
