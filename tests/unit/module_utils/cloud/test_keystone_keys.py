# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Key repositories in real directories."""

from __future__ import annotations

import base64
import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud import keystone_keys
from ansible.module_utils.testing import patch_module_args

OWNER = pwd.getpwuid(os.geteuid()).pw_name


def run(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    with patch_module_args({"owner": OWNER} | arguments), pytest.raises(SystemExit):
        keystone_keys.run(AnsibleModule(argument_spec=keystone_keys.ARGUMENT_SPEC, supports_check_mode=True))
    return dict(json.loads(capsys.readouterr().out))


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ([], ["0", "1"]),
        (["0"], ["1"]),
        (["0", "0.tmp"], ["1"]),
        (["0.tmp", "README"], ["0", "1"]),
        (["0", "1"], []),
        (["1"], ["0"]),
        (["0", "7", "8"], []),
        (["8"], ["0"]),
    ],
)
def test_missing_keys(there: list[str], missing: list[str]) -> None:
    assert keystone_keys.missing_keys(there) == missing


def test_repositories_are_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fernet, credential = tmp_path / "fernet-keys", tmp_path / "credential-keys"
    first = run(capsys, repositories=[str(fernet), str(credential)])
    assert first["changed"] is True
    assert first["made"] == [f"{directory}/{name}" for directory in (fernet, credential) for name in ("0", "1")]
    made = [contents(fernet), contents(credential)]
    keys = [key for repository in made for key in repository.values()]
    # A Fernet key is 32 bytes in URL-safe base64.
    assert [len(base64.urlsafe_b64decode(key)) for key in keys] == [32] * 4
    assert len(set(keys)) == 4
    for directory in (fernet, credential):
        assert directory.stat().st_mode & 0o7777 == 0o700
        assert {path.stat().st_mode & 0o7777 for path in directory.iterdir()} == {0o600}
        assert {path.stat().st_uid for path in (directory, *directory.iterdir())} == {os.geteuid()}
    second = run(capsys, repositories=[str(fernet), str(credential)])
    assert (second["changed"], second["made"]) == (False, [])
    assert [contents(fernet), contents(credential)] == made


def test_rotated_keys_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("0", "5", "6"):
        (tmp_path / name).write_text(f"key {name}")
        (tmp_path / name).chmod(0o600)
    tmp_path.chmod(0o700)
    assert run(capsys, repositories=[str(tmp_path)])["changed"] is False
    assert contents(tmp_path) == {name: f"key {name}".encode() for name in ("0", "5", "6")}


def test_an_interrupted_run_is_completed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "0").write_text("staged")
    (tmp_path / "1.tmp").write_text("half")
    assert run(capsys, repositories=[str(tmp_path)])["made"] == [f"{tmp_path}/1"]
    assert contents(tmp_path)["0"] == b"staged"
    assert len(contents(tmp_path)["1"]) == 44
    assert sorted(contents(tmp_path)) == ["0", "1"]


def test_keys_that_others_may_read_are_taken_from_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, repositories=[str(tmp_path / "keys")])
    before = contents(tmp_path / "keys")
    (tmp_path / "keys").chmod(0o755)
    (tmp_path / "keys" / "1").chmod(0o640)
    wanted = [f"owner and mode of {tmp_path}/keys", f"owner and mode of {tmp_path}/keys/1"]
    repositories = [str(tmp_path / "keys")]
    assert run(capsys, repositories=repositories, _ansible_check_mode=True)["changes"] == wanted
    assert run(capsys, repositories=repositories)["changes"] == wanted
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "keys" / "1").stat().st_mode & 0o777 == 0o600
    assert not run(capsys, repositories=repositories)["changed"]
    assert contents(tmp_path / "keys") == before


def test_check_mode_predicts_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = {"repositories": [str(tmp_path / "new")], "owner": "no-such-user", "_ansible_check_mode": True}
    result = run(capsys, **arguments)
    assert (result["changed"], result["made"]) == (True, [f"{tmp_path}/new/0", f"{tmp_path}/new/1"])
    assert list(tmp_path.iterdir()) == []


def test_a_missing_user_is_named_and_nothing_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, repositories=[str(tmp_path / "new")], owner="no-such-user")
    assert result["failed"] and result["msg"] == "The user no-such-user does not exist; is Keystone installed?"
    assert list(tmp_path.iterdir()) == []


def test_keys_are_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = json.dumps(run(capsys, repositories=[str(tmp_path)], _ansible_diff=True))
    assert [key for key in contents(tmp_path).values() if key.decode() in shown] == []
