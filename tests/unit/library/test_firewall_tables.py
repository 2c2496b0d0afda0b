# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Tables of a firewall against their files, with programs in the place of nft, unshare and systemd."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import firewall_tables as library
import pytest
from ansible.module_utils.kilonova.network import firewall_tables
from ansible.module_utils.testing import patch_module_args

TABLE = "table inet kilonova_filter {\n\tchain input {\n\t\taccept\n\t}\n}\n"
OTHER = TABLE.replace("accept", "drop")
# The files of these tests are in the form in which nft prints a table.
NFT = """#!/bin/sh
case "$*" in
"list tables") [ ! -s "$FAKE/live" ] || echo "table inet kilonova_filter"; echo "table inet site" ;;
"--stateless list table inet kilonova_filter") cat "$FAKE/live" ;;
"--file "*) if grep -q syntax "$2"; then echo "syntax error" >&2; exit 1; fi; cp "$2" "$FAKE/live" ;;
"delete table inet kilonova_filter") : >"$FAKE/live" ;;
*) echo "no such command: $*" >&2; exit 1 ;;
esac
"""
# A namespace of its own has no live table.
UNSHARE = """#!/bin/sh
mkdir -p "$FAKE/namespace"
[ "$1 $2 $3" = "--net sh -c" ] && FAKE="$FAKE/namespace" sh -c "$4"
"""
RECORD = """#!/bin/sh
echo "$(basename "$0") $*" >>"$FAKE/commands"
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs = {"nft": NFT, "unshare": UNSHARE, "systemctl": RECORD, "systemd-run": RECORD}
    for name, text in programs.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setattr(firewall_tables, "DIRECTORY", f"{tmp_path}/state")
    (tmp_path / "live").write_text("")
    (tmp_path / "commands").write_text("")
    (tmp_path / "firewall.nft").write_text(TABLE)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], host: Path, **arguments: Any) -> dict[str, Any]:
    files = [{"path": str(host / "firewall.nft"), "tables": ["inet kilonova_filter"]}]
    with patch_module_args({"files": files, **arguments}), pytest.raises(SystemExit):
        library.main()
    return dict(json.loads(capsys.readouterr().out))


def confirmed(capsys: pytest.CaptureFixture[str], host: Path) -> None:
    result = run(capsys, host)
    assert result["changed"]
    assert run(capsys, host, state="confirmed", token=result["token"])["status"]["armed"] is False


def undo(host: Path) -> None:
    """Run what the timer would."""
    subprocess.run(["sh", str(host / "state" / "rollback")], check=True)


def test_tables_are_loaded_once_and_kept_for_the_next_boot(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predicted = run(capsys, host, _ansible_check_mode=True)
    assert (host / "live").read_text() == "" and not (host / "state").exists()
    assert predicted["diff"][0]["before"] == "" and predicted["diff"][0]["after"] == TABLE
    result = run(capsys, host)
    assert result["changes"] == predicted["changes"]
    assert (host / "live").read_text() == TABLE
    # Until it is confirmed, a boot would not load it.
    assert not (host / "state" / "firewall.nft").exists()
    run(capsys, host, state="confirmed", token=result["token"])
    assert (host / "state" / "firewall.nft").read_text() == TABLE
    assert not run(capsys, host)["changed"]
    commands = (host / "commands").read_text()
    assert "systemd-run --quiet --on-active=60" in commands
    assert f"systemctl stop kilonova-firewall-rollback-{result['token']}.timer" in commands


def test_first_tables_that_nobody_confirms_are_deleted(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = run(capsys, host)["token"]
    undo(host)
    assert (host / "live").read_text() == ""
    assert run(capsys, host, state="inspected")["status"] == {"token": token, "armed": False, "undone": True}
    assert "no such change" in run(capsys, host, state="confirmed", token=token)["msg"]


def test_later_tables_that_nobody_confirms_are_replaced_by_those_before(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    confirmed(capsys, host)
    (host / "firewall.nft").write_text(OTHER)
    run(capsys, host)
    assert (host / "live").read_text() == OTHER
    undo(host)
    assert (host / "live").read_text() == (host / "state" / "firewall.nft").read_text() == TABLE
    # The next run tries again.
    confirmed(capsys, host)
    assert (host / "live").read_text() == OTHER
    # What is confirmed stays.
    undo(host)
    assert (host / "live").read_text() == OTHER


def test_a_change_that_an_earlier_run_left_is_made_again(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(capsys, host)["token"]
    predicted = run(capsys, host, _ansible_check_mode=True)
    assert "an earlier change was not confirmed" in predicted["changes"]
    second = run(capsys, host)["token"]
    assert second != first
    assert "no such change" in run(capsys, host, state="confirmed", token=first)["msg"]
    assert run(capsys, host, state="confirmed", token=second)["changed"]


def test_rules_changed_by_hand_are_replaced(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    confirmed(capsys, host)
    (host / "live").write_text(OTHER)
    assert run(capsys, host, _ansible_check_mode=True)["changes"] == ["nftables: table inet kilonova_filter"]
    confirmed(capsys, host)
    assert (host / "live").read_text() == TABLE


def test_rules_that_nft_refuses_change_nothing(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    confirmed(capsys, host)
    (host / "firewall.nft").write_text("syntax")
    assert "syntax error" in run(capsys, host)["msg"]
    assert (host / "live").read_text() == TABLE and not (host / "state" / "armed").exists()


def test_a_firewall_that_is_switched_off_leaves_nothing(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    confirmed(capsys, host)
    assert run(capsys, host, state="absent")["changed"]
    assert (host / "live").read_text() == "" and not (host / "state" / "firewall.nft").exists()
    assert not run(capsys, host, state="absent")["changed"]


def test_a_device_that_the_host_lacks(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ip",):
        (host / "bin" / name).write_text(RECORD)
        (host / "bin" / name).chmod(0o755)
    files = [{"path": str(host / "firewall.nft"), "tables": ["inet kilonova_filter"], "device": "kn-missing"}]
    result = run(capsys, host, files=files)
    # The copy is for when it comes.
    assert result["changes"] == [str(host / "state" / "firewall.nft")]
    assert (host / "live").read_text() == ""


def test_before_the_first_run(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (host / "firewall.nft").unlink()
    assert run(capsys, host, _ansible_check_mode=True)["changed"]
    assert "does not exist" in run(capsys, host)["msg"]
