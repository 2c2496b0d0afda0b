# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A live table against its file, with a program in the place of nft and unshare."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nft_table as library
import pytest
from ansible.module_utils.testing import patch_module_args

TABLE = "table ip kilonova {\n\tchain postrouting {\n\t\tmasquerade\n\t}\n}\n"
NFT = """#!/bin/sh
case "$*" in
"list tables") [ ! -s "$FAKE/live" ] || echo "table ip kilonova"; echo "table inet site" ;;
"--stateless list table ip kilonova") cat "$FAKE/live" ;;
"--file "*) cp "$2" "$FAKE/live" ;;
"delete table ip kilonova") : > "$FAKE/live" ;;
*) echo "no such command: $*" >&2; exit 1 ;;
esac
"""
# The file of these tests is in the form in which nft prints a table.
UNSHARE = """#!/bin/sh
[ "$*" = "--net nft --stateless --file -" ] || exit 1
read -r include file
read -r list table family name
[ "$include $list $table $family $name" = "include list table ip kilonova" ] || exit 1
eval cat "$file"
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in (("nft", NFT), ("unshare", UNSHARE)):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(tmp_path))
    (tmp_path / "live").write_text(TABLE)
    (tmp_path / "nat.nft").write_text(TABLE)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], host: Path, **arguments: Any) -> dict[str, Any]:
    arguments = {"family": "ip", "name": "kilonova", "file": str(host / "nat.nft"), **arguments}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        library.main()
    return dict(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize("live", ["", TABLE.replace("masquerade", "accept")])
def test_a_table_that_differs_is_loaded_once(host: Path, capsys: pytest.CaptureFixture[str], live: str) -> None:
    (host / "live").write_text(live)
    predicted = run(capsys, host, _ansible_check_mode=True)
    assert (host / "live").read_text() == live
    assert predicted["diff"]["before"] == live and predicted["diff"]["after"] == TABLE
    assert run(capsys, host)["changes"] == predicted["changes"] == ["nftables: table ip kilonova"]
    assert (host / "live").read_text() == TABLE
    assert not run(capsys, host)["changed"]


def test_a_table_that_must_not_be_there_is_deleted(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, host, state="absent")["changed"]
    assert (host / "live").read_text() == ""
    assert not run(capsys, host, state="absent")["changed"]


def test_before_the_first_run(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (host / "nat.nft").unlink()
    assert run(capsys, host, _ansible_check_mode=True)["changed"]
    assert "does not exist" in run(capsys, host)["msg"]
