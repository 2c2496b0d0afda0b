# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""An operator may choose the member with which a cluster begins again, where that loses nothing that is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import galera_recovery
import pytest
from ansible.module_utils.kilonova.database import galera_recovery as recovery

ONE = "11111111-1111-11f0-9111-111111111111"
TWO = "22222222-2222-11f0-9222-222222222222"
PRIMARY = {"uuid": ONE, "seqno": 9, "waits": False, "primary": True}
STOPPED = {"uuid": "", "seqno": -1, "waits": False, "primary": False}


def waits(seqno: int, uuid: str = ONE) -> dict[str, Any]:
    return {"uuid": uuid, "seqno": seqno, "waits": True}


STATES = {"c1": waits(5), "c2": waits(7), "c3": None}


@pytest.mark.parametrize(
    ("states", "choice", "without", "why"),
    [
        (STATES, "", [], "-e recover_database=c2 -e recover_without=c3. What only c3 had committed is lost"),
        (STATES, "c1", ["c3"], "c2 has newer data than c1"),
        (STATES, "c2", [], "Not known what they have: c3. recover_without names none"),
        (STATES, "c2", ["c1", "c3"], "recover_without names c1, c3"),
        ({**STATES, "c3": STOPPED}, "c3", ["c3"], "c3 does not wait with data"),
        ({**STATES, "c1": waits(5, TWO)}, "c2", ["c3"], "different clusters"),
        ({"c1": waits(-1, ""), "c2": None, "c3": None}, "c1", ["c2", "c3"], "No member that answers has data"),
        (STATES, "c2", ["c3"], ""),
    ],
)
def test_refusal(states: dict[str, Any], choice: str, without: list[str], why: str) -> None:
    found = recovery.refusal(states, choice, without)
    assert why in found if why else not found


@pytest.fixture
def members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Set what the members say, without and with the permit."""
    monkeypatch.setattr(recovery, "DATA", str(tmp_path))
    monkeypatch.setattr(recovery, "PROGRAM", str(tmp_path / "program"))

    def say(before: dict[str, Any], after: dict[str, Any]) -> None:
        for name, states in (("before", before), ("after", after)):
            (tmp_path / name).write_text(json.dumps(states))
        text = f"#!/bin/sh\ncd {tmp_path}; [ ! -e kilonova-bootstrap ] || exec cat after; exec cat before\n"
        (tmp_path / "program").write_text(text)
        (tmp_path / "program").chmod(0o755)

    return say


def test_begin(members: Callable[..., None], tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    members(STATES, {**STATES, "c2": PRIMARY})
    arguments = {"choice": "c2", "without": ["c3"], "timeout": 1}
    assert not run_module(galera_recovery, name="c1", **arguments)["changed"]
    assert run_module(galera_recovery, name="c2", check=True, **arguments)["changed"]
    assert not (tmp_path / "kilonova-bootstrap").exists()
    result = run_module(galera_recovery, name="c2", **arguments)
    assert result["changed"] and f"c2: in the cluster {ONE}" in result["members"]
    assert (tmp_path / "kilonova-bootstrap").read_text() == f"{ONE}:7\n"


def test_a_cluster_that_is_up_is_left_alone(
    members: Callable[..., None], tmp_path: Path, run_module: Callable[..., dict[str, Any]]
) -> None:
    members({**STATES, "c1": PRIMARY}, {})
    assert not run_module(galera_recovery, name="c2", choice="c2", without=["c3"], timeout=1)["changed"]
    assert not (tmp_path / "kilonova-bootstrap").exists()


def test_a_member_that_does_not_begin(members: Callable[..., None], run_module: Callable[..., dict[str, Any]]) -> None:
    members(STATES, STATES)
    assert "did not begin" in run_module(galera_recovery, name="c2", choice="c2", without=["c3"], timeout=0)["msg"]
