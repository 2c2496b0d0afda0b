# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What decides whether a cluster of MariaDB begins, is joined or is refused, before MariaDB starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import galera_member
import pytest
from ansible.module_utils.kilonova.database import galera
from ansible.module_utils.kilonova.database.galera import NULL, PERMIT, Verdict, galera_data, verdict

EMPTY: dict[str, Any] = {"uuid": "", "databases": [], "alone": False}
ALONE: dict[str, Any] = {"uuid": "", "databases": ["nova"], "alone": True}
HALF: dict[str, Any] = {"uuid": "", "databases": ["nova"], "alone": False}
ONE = "11111111-1111-11f0-9111-111111111111"
TWO = "22222222-2222-11f0-9222-222222222222"


def member(uuid: str) -> dict[str, Any]:
    return {"uuid": uuid, "databases": ["nova"], "alone": False}


def answers(members: dict[str, Any], lead: str = "c1", live: dict[str, str] | None = None) -> dict[str, str]:
    """Return what each of the hosts does, or the word refused."""
    found = {name: verdict(name, lead, members, live or {}) for name in members}
    return {name: what.does or "refused" for name, what in found.items()}


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        # No cluster, no data: it begins on the lead.
        ({"c1": EMPTY, "c2": EMPTY, "c3": EMPTY}, ["begin", "join", "join"]),
        # One host with data, not the lead: it begins, and the empty ones join.
        ({"c1": EMPTY, "c2": ALONE, "c3": EMPTY}, ["join", "begin", "join"]),
        # A transfer to c2 was interrupted when c1 alone was in the cluster.
        ({"c1": member(ONE), "c2": HALF, "c3": EMPTY}, ["member", "join", "join"]),
        # A disk was lost.
        ({"c1": EMPTY, "c2": member(ONE), "c3": member(ONE)}, ["join", "member", "member"]),
        # A host was not looked at: what exists is known from others.
        ({"c1": member(ONE), "c2": EMPTY, "c3": None}, ["member", "join", "join"]),
        # Nobody has data as far as is known.
        ({"c1": EMPTY, "c2": EMPTY, "c3": None}, ["refused", "refused", "refused"]),
        ({"c1": ALONE, "c2": EMPTY, "c3": None}, ["refused", "refused", "refused"]),
        # Two standalone databases, two clusters.
        ({"c1": ALONE, "c2": ALONE, "c3": EMPTY}, ["refused", "refused", "refused"]),
        ({"c1": member(ONE), "c2": member(TWO), "c3": EMPTY}, ["refused", "refused", "refused"]),
        # Databases of its own on a host that would join.
        ({"c1": member(ONE), "c2": ALONE, "c3": EMPTY}, ["member", "refused", "join"]),
    ],
)
def test_verdict(members: dict[str, Any], expected: list[str]) -> None:
    assert list(answers(members).values()) == expected


def test_members_that_answer_are_believed() -> None:
    """A run with --limit has looked at one host."""
    members = {"c1": None, "c2": EMPTY, "c3": None}
    assert verdict("c2", "c1", members, {"c1": ONE, "c3": ONE}) == Verdict("join")
    assert "different clusters" in verdict("c2", "c1", {**members, "c2": member(TWO)}, {"c1": ONE}).refusal


def test_no_host_begins_twice() -> None:
    """With each combination of what three hosts may have, at most one begins, and only where nobody is in a cluster."""
    kinds: list[Any] = [EMPTY, ALONE, HALF, member(ONE), None]
    for first in kinds:
        for second in kinds:
            for third in kinds:
                members = {"c1": first, "c2": second, "c3": third}
                found = list(answers(members, "c2").values())
                assert found.count("begin") <= 1
                if any(data and data["uuid"] for data in members.values()) or None in members.values():
                    assert "begin" not in found
                if "begin" in found and ALONE in members.values():
                    assert members[list(members)[found.index("begin")]] == ALONE


def grastate(directory: Path, uuid: str) -> None:
    text = f"# GALERA saved state\nversion: 2.1\nuuid:    {uuid}\nseqno:   -1\nsafe_to_bootstrap: 0\n"
    (directory / "grastate.dat").write_text(text)


def test_data(tmp_path: Path) -> None:
    assert galera_data(str(tmp_path / "absent")) == EMPTY
    for name in ("mysql", "sys", "performance_schema", "#rocksdb", ".cache"):
        (tmp_path / name).mkdir()
    assert galera_data(str(tmp_path)) == EMPTY
    (tmp_path / "nova").mkdir()
    assert galera_data(str(tmp_path)) == ALONE
    # Galera has been here, and nothing has come from it yet.
    grastate(tmp_path, NULL)
    assert galera_data(str(tmp_path)) == HALF
    # The same on a host that begins with its data: they are not what another one has sent.
    (tmp_path / PERMIT).write_text("none\n")
    assert galera_data(str(tmp_path)) == ALONE
    grastate(tmp_path, ONE)
    assert galera_data(str(tmp_path)) == member(ONE)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(galera, "DATA", str(tmp_path))
    monkeypatch.setattr(galera, "PROGRAM", str(tmp_path / "absent"))
    monkeypatch.setattr(galera.galera_data, "__defaults__", (str(tmp_path),))
    return tmp_path


def test_the_permit(data: Path, run_module: Callable[..., dict[str, Any]], fake_program: Callable[..., Path]) -> None:
    fake_program("systemctl", "exit 0")
    members = {"c1": EMPTY, "c2": EMPTY, "c3": EMPTY}
    assert run_module(galera_member, check=True, name="c1", lead="c1", members=members)["changed"]
    assert not (data / PERMIT).exists()
    for changed in (True, False):
        result = run_module(galera_member, name="c1", lead="c1", members=members)
        assert (result["changed"], result["begins"], result["runs"]) == (changed, True, False)
    assert (data / PERMIT).read_text() == "none\n"
    # The cluster is there: a run that was killed has left the permit.
    grastate(data, ONE)
    result = run_module(galera_member, name="c1", lead="c1", members=members)
    assert (result["changed"], result["does"], result["runs"]) == (True, "member", True)
    assert not (data / PERMIT).exists()


def test_a_refusal_ends_the_run(data: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    result = run_module(galera_member, name="c1", lead="c1", members={"c1": EMPTY, "c2": None})
    assert result["failed"] and "c2 could not be looked at" in result["msg"]
