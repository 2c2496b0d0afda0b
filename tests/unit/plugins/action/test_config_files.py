# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin config_files, run by ansible-playbook on this computer."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible.module_utils.kilonova.config.masking import secret_forms

PROJECT = Path(__file__).resolve().parents[4]
OWNER, GROUP = str(os.getuid()), str(os.getgid())
SECRET = "p@:/%$#'\"\\ w"

PLAY = """
- hosts: all
  gather_facts: false
  vars:
    password: '{secret}'
    overrides: {overrides}
    x_conf_overrides: '{{{{ overrides[inventory_hostname] }}}}'
  tasks:
    - name: Configure
      config_files:
        files:
          - {{dest: '{root}/{{{{ inventory_hostname }}}}.conf', src: '{{{{ inventory_hostname }}}}.conf.j2',
             owner: '{owner}', group: '{group}', mode: '0600', overrides: '{{{{ x_conf_overrides }}}}',
             overrides_name: x_conf_overrides}}
          - {{dest: '{root}/{{{{ inventory_hostname }}}}.y', content: '{{{{ password }}}}',
             owner: '{owner}', group: '{group}'}}
        secrets: ['{{{{ password }}}}']
"""


def play(root: Path, overrides: dict[str, Any], *arguments: str) -> tuple[int, str]:
    """Run the task once for each host, all of them this computer, and return the exit status and the output."""
    secret = SECRET.replace("'", "''")
    text = PLAY.format(root=root, owner=OWNER, group=GROUP, overrides=json.dumps(overrides), secret=secret)
    (root / "play.yml").write_text(text)
    (root / "ansible.cfg").write_text("[defaults]\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")} | {
        "ANSIBLE_CONFIG": str(root / "ansible.cfg"),
        "ANSIBLE_LIBRARY": str(PROJECT / "library"),
        "ANSIBLE_MODULE_UTILS": str(PROJECT / "module_utils"),
        "ANSIBLE_ACTION_PLUGINS": str(PROJECT / "plugins" / "action"),
        "ANSIBLE_HOME": str(root / "home"),
        "ANSIBLE_NOCOLOR": "1",
    }
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "-i",
        "".join(f"{host}," for host in overrides),
        "-c",
        "local",
        "play.yml",
    ]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_task_renders_merges_and_hides(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "a.conf.j2").write_text(
        "# {{ ansible_managed }}\n[DEFAULT]\n# about debug\ndebug = false\n{% if true %}\ngone = 1\n{% endif %}\n"
        "{% include 'part.j2' %}"
    )
    (tmp_path / "templates" / "part.j2").write_text("[auth]\npassword = {{ password | replace('$', '$$') }}")
    status, output = play(tmp_path, {"a": {"DEFAULT": {"debug": True, "gone": None}}}, "--diff", "-vvv")
    assert status == 0, output
    lines = (tmp_path / "a.conf").read_text().splitlines()
    assert lines[1:] == [
        "[DEFAULT]",
        "# about debug",
        "debug = true",
        "[auth]",
        f"password = {SECRET}".replace("$", "$$"),
    ]
    assert (tmp_path / "a.y").read_text() == SECRET + "\n"
    assert "password = ********" in output and "+debug = true" in output
    for form in [*secret_forms(SECRET), base64.b64encode(SECRET.encode()).decode()[:-4]]:
        assert form not in output and json.dumps(form)[1:-1] not in output


# Of hosts: a template, overrides, and what is to be said about them.
MISTAKES: dict[str, tuple[str, Any, str]] = {
    "a": ("a\n{{ nothere }}\n", {}, "'nothere' is undefined (see {root}/templates/a.conf.j2 line 2)"),
    "b": ("a\n\n{% if x ~ %}\n", {}, "{root}/templates/b.conf.j2 line 3)"),
    "c": (
        "[DEFAULT]\n",
        {"DEFAULT": "debug"},
        "x_conf_overrides: section 'DEFAULT' is a string, not a mapping of options",
    ),
    "d": (
        "[DEFAULT]\nnonsense\n",
        {"DEFAULT": {"a": 1}},
        "d.conf.j2, line 2: neither a comment, a [section] nor 'option = value'",
    ),
}


def test_a_mistake_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    for host, (template, _, _) in MISTAKES.items():
        (tmp_path / "templates" / f"{host}.conf.j2").write_text(template)
    status, output = play(tmp_path, {host: overrides for host, (_, overrides, _) in MISTAKES.items()})
    assert status != 0
    failures = dict(re.findall(r"^fatal: \[(\w)\]: FAILED! => (.*)$", output, re.M))
    assert failures.keys() == MISTAKES.keys(), output
    for host, (_, _, message) in MISTAKES.items():
        assert message.replace("{root}", str(tmp_path)) in json.loads(failures[host])["msg"]
    assert list(tmp_path.glob("*.conf")) + list(tmp_path.glob("*.y")) == []
