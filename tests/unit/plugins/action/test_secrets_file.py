# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The file of generated secrets: only what is missing, never readable by others, encrypted where it was."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret, is_encrypted

from plugins.action import secrets_file

PROJECT = Path(__file__).resolve().parents[4]
ODD = "@:/%$#'\"\\ ü"
VAULT = [("default", VaultSecret(b"vault password"))]
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "group_vars" / "all" / "secrets.yml"


@pytest.fixture
def run(path: Path) -> Run:
    """The action on names, with Ansible's own reader of files."""

    def act(
        *names: str, known: dict[str, Any] | None = None, vault: Any = (), check: bool = False, **arguments: Any
    ) -> dict[str, Any]:
        loader = DataLoader()
        loader.set_vault_secrets(list(vault))
        task = SimpleNamespace(
            args={"path": str(path), "names": list(names)} | arguments,
            action="secrets_file",
            async_val=0,
            check_mode=check,
        )
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=str(path)))
        action = secrets_file.ActionModule(task, connection, None, loader, None)
        return action.run(task_vars=known or {})

    return act


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def written(path: Path, content: str, file_mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(content)
    path.chmod(file_mode)


def test_secrets_are_generated_once(run: Run, path: Path) -> None:
    first = run("b_password", "a_password")
    names = ["b_password", "a_password"]
    assert first == {"changed": True, "generated": names, "unread": names, "path": str(path)}
    assert mode(path) == 0o600
    content = yaml.safe_load(path.read_text())
    assert sorted(content) == ["a_password", "b_password"]
    assert all(len(value) == 32 and value.isascii() and value.isalnum() for value in content.values())
    assert content["a_password"] != content["b_password"]
    before = path.read_bytes()
    assert run("b_password", "a_password")["changed"] is False
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["secrets.yml"]


def test_what_a_killed_run_was_writing_is_removed(run: Run, path: Path) -> None:
    path.parent.mkdir(parents=True)
    (path.parent / ".secrets.yml.x1y2").write_text("half_passw")
    assert run("a_password")["changed"]
    assert [entry.name for entry in path.parent.iterdir()] == ["secrets.yml"]


def test_existing_secrets_are_never_changed(run: Run, path: Path) -> None:
    existing = {"odd_password": ODD, "number_password": 1234, "empty_password": "", "unknown": "kept"}
    written(path, yaml.safe_dump(existing))
    result = run("odd_password", "number_password", "empty_password", "new_password", length=20)
    assert result["generated"] == ["new_password"]
    content = yaml.safe_load(path.read_text())
    assert len(content.pop("new_password")) == 20
    assert content == existing


def test_a_secret_of_the_inventory_is_not_generated(run: Run, path: Path) -> None:
    assert run("mine", "other", known={"mine": "from host_vars"})["generated"] == ["other"]
    assert list(yaml.safe_load(path.read_text())) == ["other"]
    path.unlink()
    assert run("mine", known={"mine": ""})["changed"] is False
    assert not path.exists()


def test_a_file_that_others_may_read_is_closed(run: Run, path: Path) -> None:
    written(path, "a: x\n", 0o644)
    assert run("a", known={"a": "x"}) == {"changed": True, "generated": [], "unread": [], "path": str(path)}
    assert (mode(path), path.read_text()) == (0o600, "a: x\n")
    assert run("a")["changed"] is False
    path.chmod(0o640)
    assert run("a", "b")["changed"] is True
    assert mode(path) == 0o600


def test_check_mode_predicts_and_writes_nothing(run: Run, path: Path) -> None:
    assert run("a", check=True)["generated"] == ["a"]
    assert not path.parent.exists()
    written(path, "a: x\n", 0o644)
    assert run("a", check=True)["changed"] is True
    assert mode(path) == 0o644


def test_secrets_that_ansible_has_not_read_are_named(run: Run, path: Path) -> None:
    written(path, "a: x\nb: y\n")
    assert run("a", "b", known={"a": "x"})["unread"] == ["b"]
    assert run("a", "b", "c", known={"a": "x"}, check=True)["unread"] == ["b"]
    assert run("a", "b", "c", known={"a": "x"})["unread"] == ["b", "c"]


def test_a_new_file_is_encrypted_where_a_vault_password_is_known(run: Run, path: Path) -> None:
    run("a", vault=VAULT)
    assert is_encrypted(path.read_bytes()) and mode(path) == 0o600
    content = yaml.safe_load(VaultLib(VAULT).decrypt(path.read_bytes()))
    assert list(content) == ["a"]
    before = path.read_bytes()
    assert run("a", vault=VAULT)["changed"] is False
    assert path.read_bytes() == before


def test_an_encrypted_file_stays_encrypted(run: Run, path: Path) -> None:
    written(path, VaultLib(VAULT).encrypt(yaml.safe_dump({"a": ODD})).decode())
    assert run("a", "b", vault=VAULT)["generated"] == ["b"]
    assert is_encrypted(path.read_bytes()) and mode(path) == 0o600
    content = yaml.safe_load(VaultLib(VAULT).decrypt(path.read_bytes()))
    assert content["a"] == ODD and len(content["b"]) == 32


def test_a_plain_file_stays_plain(run: Run, path: Path) -> None:
    written(path, "a: x\n")
    run("a", "b", vault=VAULT)
    assert list(yaml.safe_load(path.read_text())) == ["a", "b"]


@pytest.mark.parametrize("vault", [[], [("default", VaultSecret(b"wrong"))]], ids=["none", "wrong"])
def test_an_encrypted_file_without_its_password_is_left_alone(run: Run, path: Path, vault: Any) -> None:
    written(path, VaultLib(VAULT).encrypt("a: x").decode())
    before = path.read_bytes()
    with pytest.raises(AnsibleActionFail, match=f"{path} is encrypted and cannot be read"):
        run("a", "b", vault=vault)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["- a\n", "hello\n"])
def test_a_file_of_something_else_is_refused(run: Run, path: Path, content: str) -> None:
    written(path, content)
    with pytest.raises(AnsibleActionFail, match="does not hold variables: expected lines like 'name: value'"):
        run("a")
    assert path.read_text() == content


@pytest.mark.parametrize(
    "content", ["a: x\nb: 'S3cret\n", "a: x\nb: S3cret: y\n", "a: x\nb: !vault |\n  S3cret\n"]
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_refused_without_showing_it(run: Run, path: Path, content: str) -> None:
    written(path, content)
    with pytest.raises(AnsibleActionFail, match=r"is not plain YAML in line [23]\.") as failure:
        run("a", "c")
    assert "S3cret" not in str(failure.value)
    assert path.read_text() == content


def test_an_interrupted_write_leaves_the_old_file(run: Run, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(path, "a: x\n")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run("a", "b")
    assert path.read_text() == "a: x\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["secrets.yml"]


ROLE_PLAY = """
- name: Play
  hosts: all
  gather_facts: false
  connection: local
  roles: [common, secrets]
  tasks:
    - name: Compare
      ansible.builtin.debug:
        msg: "{{ inventory_hostname }} {{ nova_password | hash('sha1') }} {{ secrets | length }}"
      vars:
        secrets: "{{ query('ansible.builtin.vars', *secrets_names) }}"
"""


@pytest.mark.parametrize("check", [False, True])
def test_the_role_gives_every_host_the_secrets_of_a_file_outside_of_the_inventory(
    tmp_path: Path, path: Path, check: bool
) -> None:
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory" / "hosts").write_text("node1\nnode2\n")
    (tmp_path / "play.yml").write_text(ROLE_PLAY)
    (tmp_path / "vault-password").write_text("vault password")
    written(path, VaultLib(VAULT).encrypt("nova_password: of my own\n").decode())
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "inventory", "play.yml", "-e", f"secrets_path={path}"]
    command += ["--vault-password-file", "vault-password", *(["--check"] if check else [])]
    environment = os.environ | {"ANSIBLE_CONFIG": f"{PROJECT}/ansible.cfg", "ANSIBLE_ROLES_PATH": f"{PROJECT}/roles"}
    before = path.read_bytes()
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "text": True, "cwd": tmp_path}
    for _ in range(1 if check else 2):
        done = subprocess.run(command, env=environment, capture_output=True, check=False, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        digest = hashlib.sha1(b"of my own").hexdigest()
        assert {f"{host} {digest} 21" for host in ("node1", "node2")} <= set(re.findall(r"node\d \w+ \d+", done.stdout))
        assert "of my own" not in done.stdout + done.stderr
    assert (path.read_bytes() == before) is check


def test_ansible_generates_what_a_real_inventory_lacks(tmp_path: Path, path: Path) -> None:
    (tmp_path / "hosts").write_text("[controller]\nnova1 ansible_connection=local\n")
    (tmp_path / "group_vars" / "controller").mkdir(parents=True)
    (tmp_path / "group_vars" / "controller" / "mine.yml").write_text("mine_password: of my own\n")
    (tmp_path / "vault-password").write_text("vault password")
    task = {"name": "Generate", "secrets_file": {"path": str(path), "names": ["mine_password", "new_password"]}}
    play = {"name": "Play", "hosts": "controller", "gather_facts": False, "tasks": [task]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    command = [sys.executable, "-m", "ansible", "playbook", "-vvv", "-i", "hosts", "play.yml"]
    command += ["--vault-password-file", "vault-password"]
    environment = os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")}
    outputs = []
    for changed in (1, 0):
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"changed={changed} " in done.stdout
        outputs.append(done.stdout + done.stderr)
    assert path.read_bytes().startswith(b"$ANSIBLE_VAULT;") and mode(path) == 0o600
    content = yaml.safe_load(VaultLib(VAULT).decrypt(path.read_bytes()))
    assert list(content) == ["new_password"]
    assert [output for output in outputs if content["new_password"] in output] == []
