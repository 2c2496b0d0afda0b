# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin config_files, run by ansible-playbook on this computer."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.module_utils.kilonova.config.masking import secret_forms

PROJECT = Path(__file__).resolve().parents[4]
OWNER, GROUP = str(os.getuid()), str(os.getgid())
SECRET = "p@:/%$#'\"\\ w"

PLAY = """
- hosts: localhost
  gather_facts: false
  vars:
    password: '{secret}'
    x_conf_overrides: {overrides}
  tasks:
    - name: Configure
      config_files:
        files:
          - {{dest: '{root}/x.conf', src: x.conf.j2, owner: '{owner}', group: '{group}', mode: '0600',
             overrides: '{{{{ x_conf_overrides }}}}', overrides_name: x_conf_overrides}}
          - {{dest: '{root}/y', content: '{{{{ password }}}}', owner: '{owner}', group: '{group}'}}
        secrets: ['{{{{ password }}}}']
"""


def play(root: Path, overrides: str = "{DEFAULT: {debug: true, gone: null}}", *arguments: str) -> tuple[int, str]:
    """Run the task with ansible-playbook on this computer, and return its exit status and output."""
    (root / "templates").mkdir(exist_ok=True)
    secret = SECRET.replace("'", "''")
    text = PLAY.format(root=root, owner=OWNER, group=GROUP, overrides=overrides, secret=secret)
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
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-c", "local", "play.yml"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_task_renders_merges_and_hides(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "x.conf.j2").write_text(
        "# {{ ansible_managed }}\n[DEFAULT]\n# about debug\ndebug = false\n{% if true %}\ngone = 1\n{% endif %}\n"
        "{% include 'part.j2' %}"
    )
    (tmp_path / "templates" / "part.j2").write_text("[auth]\npassword = {{ password | replace('$', '$$') }}")
    status, output = play(tmp_path, "{DEFAULT: {debug: true, gone: null}}", "--diff", "-vvv")
    assert status == 0, output
    lines = (tmp_path / "x.conf").read_text().splitlines()
    assert lines[1:] == [
        "[DEFAULT]",
        "# about debug",
        "debug = true",
        "[auth]",
        f"password = {SECRET}".replace("$", "$$"),
    ]
    assert (tmp_path / "y").read_text() == SECRET + "\n"
    assert "password = ********" in output and "+debug = true" in output
    for form in [*secret_forms(SECRET), base64.b64encode(SECRET.encode()).decode()[:-4]]:
        assert form not in output and json.dumps(form)[1:-1] not in output


@pytest.mark.parametrize(
    ("template", "overrides", "message"),
    [
        ("a\n{{ nothere }}\n", "{}", "'nothere' is undefined (see {root}/templates/x.conf.j2 line 2)"),
        ("a\n\n{% if x ~ %}\n", "{}", "{root}/templates/x.conf.j2 line 3)"),
        (
            "[DEFAULT]\n",
            "{DEFAULT: debug}",
            "x_conf_overrides: section 'DEFAULT' is a string, not a mapping of options",
        ),
        (
            "[DEFAULT]\nnonsense\n",
            "{DEFAULT: {a: 1}}",
            "x.conf.j2, line 2: neither a comment, a [section] nor 'option = value'",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, template: str, overrides: str, message: str) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "x.conf.j2").write_text(template)
    status, output = play(tmp_path, overrides)
    assert status != 0 and message.replace("{root}", str(tmp_path)) in output
    assert not (tmp_path / "y").exists()
