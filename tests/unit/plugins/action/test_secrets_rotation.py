# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The action that writes the stages of a rotation: encrypted where the file was, and no value in its result."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret, is_encrypted

from plugins.action import secrets_rotation

VAULT = [("default", VaultSecret(b"vault password"))]
OLD = {"nova_database_password": "of the first time", "keystone_admin_password": "of the administrator"}
CLASSES = {"database": ["nova_database_password"], "admin": ["keystone_admin_password"]}


class Tagged(str):
    """As Ansible's own, YAML cannot write it."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secrets.yml"


def run(path: Path, state: str, check: bool = False, known: dict[str, Any] | None = None, **arguments: Any) -> Any:
    loader = DataLoader()
    loader.set_vault_secrets(VAULT)
    task = SimpleNamespace(
        args={"path": str(path), "state": state, "classes": CLASSES} | arguments,
        action="secrets_rotation",
        async_val=0,
        check_mode=check,
    )
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=str(path)))
    return secrets_rotation.ActionModule(task, connection, None, loader, None).run(task_vars=known or {})


@pytest.mark.parametrize("encrypted", [False, True])
def test_from_the_begin_to_the_end(path: Path, encrypted: bool) -> None:
    text = yaml.safe_dump(OLD).encode()
    path.write_bytes(VaultLib(VAULT).encrypt(text) if encrypted else text)

    def content() -> dict[str, Any]:
        data = path.read_bytes()
        assert is_encrypted(data) == encrypted
        return dict(yaml.safe_load(VaultLib(VAULT).decrypt(data) if encrypted else data))

    first = run(path, "begun", rotate="database", length=40)
    assert first["changed"] and not first["resumed"]
    assert (first["stage"], first["classes"], first["secrets"]) == ("add", ["database"], ["nova_database_password"])
    new = content()["secrets_rotation"]["other"]["nova_database_password"]
    assert len(new) == 40 and new not in repr(first)
    assert path.stat().st_mode & 0o7777 == 0o600
    again = run(path, "begun")
    assert (again["changed"], again["resumed"]) == (False, True)
    states = [Tagged(state) for state in ("use", "use", "remove", "ended", "ended")]
    assert [run(path, state)["changed"] for state in states] == [True, False, True, True, False]
    assert content() == OLD | {"nova_database_password": new, "secrets_second_accounts": []}


def test_nothing_is_written_where_it_is_refused_or_predicted(path: Path) -> None:
    path.write_text(yaml.safe_dump(OLD))
    before = path.read_bytes()
    with pytest.raises(AnsibleActionFail, match="rotate = everything: there are no such secrets"):
        run(path, "begun", rotate=["everything"])
    with pytest.raises(AnsibleActionFail, match="nova_database_password: set elsewhere"):
        run(path, "begun", known={"nova_database_password": "of host_vars"})
    found = run(path, "begun", check=True)
    assert found["changed"] and found["secrets"] == sorted(OLD)
    assert path.read_bytes() == before
