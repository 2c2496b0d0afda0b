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

SEED = "seed" * 8
OWNER = pwd.getpwuid(os.geteuid()).pw_name


def run(capsys: pytest.CaptureFixture[str], path: Path, **arguments: Any) -> dict[str, Any]:
    given = {"owner": OWNER, "seed": SEED, "period_days": 7, "keep_seconds": 262800}
    given |= {f"{kind}_repository": str(path / kind) for kind in ("token", "credential")}
    with patch_module_args(given | arguments), pytest.raises(SystemExit):
        keystone_keys.run(AnsibleModule(argument_spec=keystone_keys.ARGUMENT_SPEC, supports_check_mode=True))
    return dict(json.loads(capsys.readouterr().out))


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name.isdigit()}


def test_repositories_are_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(capsys, tmp_path, encrypts=True)
    assert first["changed"] is True and first["encrypt"] is False
    tokens, credentials = tmp_path / "token", tmp_path / "credential"
    assert set(first["made"]) >= {
        f"{directory}/{name}" for directory in (tokens, credentials) for name in ("0", "1000")
    }
    made = [contents(tokens), contents(credentials)]
    # A Fernet key is 32 bytes in URL-safe base64.
    assert {len(base64.urlsafe_b64decode(key)) for repository in made for key in repository.values()} == {32}
    assert not set(made[0].values()) & set(made[1].values())
    for directory in (tokens, credentials):
        assert directory.stat().st_mode & 0o7777 == 0o700
        assert {path.stat().st_mode & 0o7777 for path in directory.iterdir()} == {0o600}
        assert {path.stat().st_uid for path in (directory, *directory.iterdir())} == {os.geteuid()}
    second = run(capsys, tmp_path, encrypts=True)
    assert (second["changed"], second["made"], second["encrypt"]) == (False, [], False)
    assert [contents(tokens), contents(credentials)] == made


def test_credentials_are_encrypted_with_the_new_key_until_that_is_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, tmp_path)
    old = contents(tmp_path / "credential")["1000"]
    new = {"seed": "other" * 8, "other_seeds": [SEED]}
    assert run(capsys, tmp_path, **new)["encrypt"] is False, "another controller does"
    for _ in range(2):
        found = run(capsys, tmp_path, **new, encrypts=True)
        assert (found["changed"], found["encrypt"]) == (True, True)
    assert old in contents(tmp_path / "credential").values()
    assert run(capsys, tmp_path, **new, encrypts=True, encrypted=True)["encrypt"] is False
    assert run(capsys, tmp_path, **new, encrypts=True)["changed"] is False
    assert old in contents(tmp_path / "credential").values(), "keys for credentials stay"


def test_keys_that_others_may_read_are_taken_from_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, tmp_path)
    keys = tmp_path / "token"
    before = contents(keys)
    keys.chmod(0o755)
    (keys / "1000").chmod(0o640)
    wanted = [f"owner and mode of {keys}", f"owner and mode of {keys}/1000"]
    assert run(capsys, tmp_path, _ansible_check_mode=True)["changes"] == wanted
    assert run(capsys, tmp_path)["changes"] == wanted
    assert keys.stat().st_mode & 0o777 == 0o700
    assert (keys / "1000").stat().st_mode & 0o777 == 0o600
    assert not run(capsys, tmp_path)["changed"]
    assert contents(keys) == before


def test_check_mode_predicts_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, tmp_path, owner="no-such-user", _ansible_check_mode=True)
    assert result["changed"] is True and f"{tmp_path}/token/1000" in result["made"]
    assert list(tmp_path.iterdir()) == []


def test_a_missing_user_is_named_and_nothing_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, tmp_path, owner="no-such-user")
    assert result["failed"] and result["msg"] == "The user no-such-user does not exist; is Keystone installed?"
    assert list(tmp_path.iterdir()) == []


def test_keys_are_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = json.dumps(run(capsys, tmp_path, _ansible_diff=True))
    assert [key for key in contents(tmp_path / "token").values() if key.decode() in shown] == []
    assert SEED not in shown
