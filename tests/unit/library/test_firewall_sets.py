# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Addresses in sets of a live table and of its files, with a program in the place of nft."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import firewall_sets
import pytest

TABLE = "inet kilonova_filter"
FILE = """table inet kilonova_filter {
    set hosts {
        type ipv4_addr
        elements = { 192.0.2.10 }
    }
    set compute {
        type ipv4_addr
    }
    set api_sources {
        type ipv4_addr
        flags interval
        auto-merge
        elements = { 0.0.0.0/0 }
    }
}
"""
SETS = {"hosts": ["192.0.2.10", "192.0.2.21"], "compute": ["192.0.2.21"]}
Host = Callable[..., dict[str, Any]]


@pytest.fixture
def host(
    tmp_path: Path, run_module: Callable[..., dict[str, Any]], fake_program: Callable[[str, str], Path]
) -> tuple[Path, Host]:
    """Return a directory with the file and the live sets of a host, and how to run the module there."""
    live = {"hosts": ["192.0.2.10"], "compute": []}
    (tmp_path / "live").write_text(
        json.dumps({"nftables": [{"metainfo": {}}, *({"set": {"name": n, "elem": e}} for n, e in live.items())]})
    )
    (tmp_path / "firewall.nft").write_text(FILE)
    fake_program(
        "nft",
        f"""case "$*" in
"list tables") [ ! -e {tmp_path}/live ] || echo "table {TABLE}" ;;
"--stateless list table {TABLE}") echo "table {TABLE} {{" ;;
"--json list table {TABLE}") cat {tmp_path}/live ;;
*) echo "$*" >>{tmp_path}/commands ;;
esac""",
    )

    def run(**changes: Any) -> dict[str, Any]:
        files = [str(tmp_path / "firewall.nft"), str(tmp_path / "none.nft")]
        return run_module(firewall_sets, **{"table": TABLE, "sets": SETS, "files": files, **changes})

    return tmp_path, run


def test_a_new_host_is_in_the_live_sets_and_in_the_file(host: tuple[Path, Host]) -> None:
    directory, run = host
    predicted = run(check=True)
    assert (directory / "firewall.nft").read_text() == FILE and not (directory / "commands").exists()
    result = run()
    assert result["changed"] and result["changes"] == predicted["changes"]
    assert (directory / "commands").read_text().splitlines() == [
        f"flush set {TABLE} hosts",
        f"add element {TABLE} hosts {{ 192.0.2.10, 192.0.2.21 }}",
        f"flush set {TABLE} compute",
        f"add element {TABLE} compute {{ 192.0.2.21 }}",
    ]
    text = (directory / "firewall.nft").read_text()
    assert "elements = { 192.0.2.10, 192.0.2.21 }" in text and "elements = { 0.0.0.0/0 }" in text
    assert (directory / "firewall.nft").stat().st_mode & 0o777 == 0o600
    assert not (directory / "none.nft").exists()


def test_a_host_that_goes_is_in_neither(host: tuple[Path, Host]) -> None:
    directory, run = host
    run(sets={"hosts": []})
    assert (directory / "commands").read_text() == f"flush set {TABLE} hosts\n"
    assert "192.0.2.10" not in (directory / "firewall.nft").read_text()


def test_what_is_there_does_not_change(host: tuple[Path, Host]) -> None:
    directory, run = host
    result = run(sets={"hosts": ["192.0.2.10"], "compute": [], "other": ["192.0.2.1"]})
    assert not result["changed"] and result["changes"] == []
    assert (directory / "firewall.nft").read_text() == FILE and not (directory / "commands").exists()


def test_a_host_without_a_firewall_gets_none(host: tuple[Path, Host]) -> None:
    directory, run = host
    for name in ("live", "firewall.nft"):
        (directory / name).unlink()
    assert not run()["changed"]
    assert not (directory / "firewall.nft").exists()
