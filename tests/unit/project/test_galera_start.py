# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What a member of the database does when it starts: the program that the role mariadb installs on controllers."""

from __future__ import annotations

import importlib.util
import itertools
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[3] / "roles/mariadb/templates/galera-member.j2"
MEMBERS = ["c1", "c2", "c3"]
ONE = "11111111-1111-11f0-9111-111111111111"
TWO = "22222222-2222-11f0-9222-222222222222"


@pytest.fixture(scope="module")
def program() -> ModuleType:
    """The program has no expressions of Jinja."""
    loader = SourceFileLoader("galera_member_program", str(PROGRAM))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def waits(seqno: int, uuid: str = ONE, view: str = "", own: str = "", members: str = "") -> dict[str, Any]:
    return {"uuid": uuid, "seqno": seqno, "waits": True, "view": view, "own": own, "views_members": members.split()}


EMPTY = waits(-1, "")
PRIMARY = {"uuid": ONE, "seqno": 9, "waits": False, "primary": True, "view": "", "local": 4}
STARTS = {"uuid": "", "seqno": -1, "waits": False, "primary": False, "view": ""}


def verdicts(program: ModuleType, states: dict[str, Any], permits: dict[str, str] | None = None) -> dict[str, str]:
    """Return what each member that waits decides, from what all say."""
    found = {}
    for name, own in states.items():
        if own and own["waits"]:
            peers = {other: state for other, state in states.items() if other != name}
            found[name] = program.decide(name, MEMBERS, own, peers, (permits or {}).get(name, ""))[0]
    return found


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        # All wait: the newest begins; of several, the first.
        ([waits(5), waits(7), waits(6)], ["wait", "begin", "wait"]),
        ([waits(7), waits(7), waits(7)], ["begin", "wait", "wait"]),
        # One has lost its disk, and one its position in its data.
        ([EMPTY, waits(7), waits(6)], ["wait", "begin", "wait"]),
        # Nobody has data: none begins.
        ([EMPTY, EMPTY, EMPTY], ["wait", "wait", "wait"]),
        # One does not answer, or has not come to the point yet: its data may be newer.
        ([waits(5), waits(7), None], ["wait", "wait"]),
        ([waits(5), waits(7), STARTS], ["wait", "wait"]),
        # One is in the cluster.
        ([waits(5), waits(7), PRIMARY], ["join", "join"]),
        ([EMPTY, None, PRIMARY], ["join"]),
        # Different clusters.
        ([waits(5), waits(7, TWO), PRIMARY], ["wait", "wait"]),
        ([waits(5), waits(7, TWO), waits(5)], ["wait", "wait", "wait"]),
    ],
)
def test_decide(program: ModuleType, states: list[Any], expected: list[str]) -> None:
    found = verdicts(program, dict(zip(MEMBERS, states, strict=True)))
    assert list(found.values()) == expected


def test_last_view(program: ModuleType) -> None:
    """c3 had left before the other two lost their power: they need not wait for it, and it does not begin."""
    two = [waits(7, view="3 x 8", own="a", members="a b"), waits(8, view="3 x 8", own="b", members="a b")]
    assert verdicts(program, dict(zip(MEMBERS, [*two, None], strict=True))) == {"c1": "wait", "c2": "begin"}
    # Had equal data, and comes first in the inventory.
    states = dict(zip(["c2", "c3", "c1"], [*two, waits(8)], strict=True))
    assert verdicts(program, states) == {"c2": "wait", "c3": "begin", "c1": "wait"}
    # A view whose members are not all there, or did not all end with it.
    assert verdicts(program, {"c1": two[0], "c2": None, "c3": None}) == {"c1": "wait"}
    assert verdicts(program, {"c1": two[0], "c2": waits(9), "c3": None}) == {"c1": "wait", "c2": "wait"}
    # Data that are newer than those of the last view cannot be: nobody decides.
    assert set(verdicts(program, dict(zip(MEMBERS, [*two, waits(9)], strict=True))).values()) == {"wait"}


def test_one_begins_at_most(program: ModuleType) -> None:
    """Whatever each of them sees of the others, no two begin."""
    kinds = [
        *(EMPTY, waits(5), waits(6), STARTS, PRIMARY),
        *(waits(5, view="v", own=own, members="a b") for own in "ab"),
        *(waits(6, view="w", own=own, members="a b c") for own in "abc"),
    ]
    for states in itertools.product(kinds, repeat=3):
        owns = [state["own"] for state in states if state.get("own")]
        if len(set(owns)) < len(owns) or len({state["view"] for state in states if state["view"]}) > 1:
            continue
        begin = set()
        for seen in itertools.product([True, False], repeat=6):
            sees = iter(seen)
            for index, name in enumerate(MEMBERS):
                others = {other: states[MEMBERS.index(other)] for other in MEMBERS if other != name}
                peers = {other: state if next(sees) else None for other, state in others.items()}
                if states[index]["waits"] and program.decide(name, MEMBERS, states[index], peers, "")[0] == "begin":
                    begin.add(name)
        assert len(begin) <= 1, states


def test_permit(program: ModuleType) -> None:
    states = {"c1": EMPTY, "c2": EMPTY, "c3": None}
    assert verdicts(program, states, {"c1": "none"}) == {"c1": "begin", "c2": "wait"}
    # Data have appeared: what permits to begin without any is void.
    assert verdicts(program, {**states, "c3": waits(3)}, {"c1": "none"}) == {"c1": "wait", "c2": "wait", "c3": "begin"}
    assert verdicts(program, {**states, "c2": None, "c3": waits(3)}, {"c1": "none"}) == {"c1": "wait", "c3": "wait"}
    # An operator has chosen what c2 has. Once it has written more, the permit is void.
    states = {"c1": None, "c2": waits(5), "c3": waits(4)}
    assert verdicts(program, states, {"c2": f"{ONE}:5"}) == {"c2": "begin", "c3": "wait"}
    assert verdicts(program, {**states, "c2": waits(6)}, {"c2": f"{ONE}:5"})["c2"] == "wait"
    # A cluster that is there comes first.
    assert verdicts(program, {**states, "c1": PRIMARY}, {"c2": f"{ONE}:5"})["c2"] == "join"


def test_files_of_galera(program: ModuleType, tmp_path: Path) -> None:
    assert program.saved(str(tmp_path)) == {}
    assert program.view(str(tmp_path))["view"] == ""
    (tmp_path / "grastate.dat").write_text(f"# GALERA saved state\nversion: 2.1\nuuid:    {ONE}\nseqno:   -1\n")
    assert program.saved(str(tmp_path))["uuid"] == ONE
    (tmp_path / "gvwstate.dat").write_text(
        "my_uuid: a-1\n#vwbeg\nview_id: 3 a-1 5\nbootstrap: 0\nmember: b-2 0\nmember: a-1 0\n#vwend\n"
    )
    assert program.view(str(tmp_path)) == {"view": "3 a-1 5", "views_members": ["a-1", "b-2"], "own": "a-1"}


@pytest.mark.parametrize(
    ("status", "maintenance", "code"),
    [
        ({"wsrep_cluster_status": "Primary"}, False, 200),
        ({"wsrep_cluster_status": "non-Primary"}, False, 503),
        ({"wsrep_cluster_status": "non-Primary"}, True, 404),
        ({}, False, 200),
        ({}, True, 404),
    ],
)
def test_whether_a_controller_serves(program: ModuleType, status: dict[str, str], maintenance: bool, code: int) -> None:
    """One that is cut off from the majority gives its addresses away. One without MariaDB uses that of another."""
    assert program.serves(status, maintenance) == code
