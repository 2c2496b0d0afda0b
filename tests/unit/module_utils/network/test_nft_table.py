# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A live table against its file, with a program in the place of nft and unshare."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nft_table as library
import pytest
from ansible.module_utils.kilonova.network import nft_table
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
# The file of these tests is in the form in which nft prints a table. $6 is the file.
UNSHARE = """#!/bin/sh
[ "$1 $2 $3" = "--net sh -c" ] && [ "$7 $8" = "ip kilonova" ] && cat "$6"
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


SNAT = """table ip kilonova
delete table ip kilonova
table ip kilonova {
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 192.168.1.0/24 ip daddr != 192.168.1.0/24 oifname "eth0" masquerade
    }
}
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="needs root and nftables")
def test_real_nft_prints_what_a_file_defines(tmp_path: Path) -> None:
    """In a network namespace of this test, what is loaded is what is wanted."""
    file = tmp_path / "nat.nft"
    file.write_text(SNAT)
    script = f"""{nft_table.LOAD_AND_LIST.replace('"$1"', str(file)).replace('"$2" "$3"', "ip kilonova")}
        nft --stateless list table ip kilonova"""
    output = subprocess.run(["unshare", "--net", "sh", "-c", script], check=True, capture_output=True, text=True).stdout
    first, second = output[: len(output) // 2], output[len(output) // 2 :]
    assert first == second
    assert 'oifname "eth0" masquerade' in first
