# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What becomes of the database of a RabbitMQ node: never a second cluster, never the last copy lost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import rabbitmq_cluster as library
from ansible.module_utils.kilonova.system import rabbitmq_cluster
from ansible.module_utils.kilonova.system.rabbitmq_cluster import Look, Plan, plan, quorum_without, whole
from ansible.module_utils.testing import patch_module_args

A, B, C = MEMBERS = ["rabbit@a", "rabbit@b", "rabbit@c"]
BLANK = Look()
DOWN = Look(database=True)


def running(*names: str, members: list[str] | None = None) -> Look:
    return Look(database=True, serving=True, members=members or MEMBERS, running=list(names))


def test_where_no_host_has_a_database_all_nodes_form_one_cluster() -> None:
    assert plan(C, MEMBERS, {A: BLANK, B: BLANK, C: BLANK}) == Plan()


def test_without_a_database_nothing_starts_while_a_host_that_may_have_one_is_away() -> None:
    found = plan(C, MEMBERS, {A: None, B: BLANK, C: BLANK})
    assert A in found.problem
    assert not found.through


def test_a_lost_database_begins_anew_through_those_that_serve() -> None:
    assert plan(C, MEMBERS, {A: DOWN, B: running(A, B), C: BLANK}) == Plan(through=(B,))


def test_a_lost_database_waits_for_those_that_have_theirs_and_are_down() -> None:
    assert plan(C, MEMBERS, {A: DOWN, B: None, C: BLANK}) == Plan(through=(A,))


def test_a_member_that_was_forgotten_is_set_aside_only_where_the_others_are_a_majority() -> None:
    two = [A, B]
    assert plan(C, MEMBERS, {A: running(A, B, members=two), B: running(A, B, members=two), C: DOWN}).anew
    assert not plan(C, MEMBERS, {A: running(A, members=two), B: DOWN, C: DOWN}).anew


def test_a_member_of_the_cluster_keeps_its_database() -> None:
    assert plan(C, MEMBERS, {A: running(A, B), B: running(A, B), C: DOWN}) == Plan()
    assert plan(C, MEMBERS, {A: DOWN, B: DOWN, C: DOWN}) == Plan()


def test_of_two_clusters_that_formed_apart_one_yields() -> None:
    looks: dict[str, Look | None] = {A: running(A, members=[A]), B: running(B, members=[B]), C: None}
    assert not plan(A, MEMBERS, looks).anew
    assert plan(B, MEMBERS, looks).anew


@pytest.mark.parametrize(("names", "enough"), [([A, B, C], True), ([A, C], False), ([C], False), ([A, B], True)])
def test_a_majority_is_counted_without_the_node_in_question(names: list[str], enough: bool) -> None:
    assert quorum_without(running(*names), C) is enough


def test_a_cluster_is_whole_where_each_member_sees_all() -> None:
    assert whole(MEMBERS, dict.fromkeys(MEMBERS, running(*MEMBERS)))
    assert not whole(MEMBERS, {A: running(*MEMBERS), B: running(*MEMBERS), C: None})
    assert not whole(MEMBERS, {A: running(*MEMBERS), B: running(*MEMBERS), C: running(A, B)})


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose rabbitmqctl prints "answer", and fails where that is missing."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "rabbitmqctl").write_text(
        '#!/bin/sh\necho "$*" >> "$FAKE/calls"\ncase "$*" in *eval*) cat "$FAKE/answer" ;; esac\n'
    )
    (programs / "systemctl").write_text(
        '#!/bin/sh\necho "$*" >> "$FAKE/calls"\n[ "$1" != is-active ] || printf "active\\nactive\\n"\n'
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setattr(rabbitmq_cluster, "POLL_SECONDS", 0.01)
    (tmp_path / "mnesia" / C).mkdir(parents=True)
    (tmp_path / "mnesia" / C / "schema.DAT").write_text("tables")
    return tmp_path


def answer(host: Path, look: Look) -> None:
    names = ("serving", "members", "running", "partitions", "critical")
    (host / "answer").write_text(json.dumps({name: getattr(look, name) for name in names}) + "\nok\n")


def run(capsys: pytest.CaptureFixture[str], host: Path, **arguments: Any) -> dict[str, Any]:
    given = {"node": C, "members": MEMBERS, "directory": str(host / "mnesia"), "timeout": 0, **arguments}
    with patch_module_args(given), pytest.raises(SystemExit):
        library.main()
    return dict(json.loads(capsys.readouterr().out))


def test_a_look_has_what_the_node_says(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(host, running(A, C))
    look = run(capsys, host, state="looked")["look"]
    assert (look["database"], look["serving"], look["running"]) == (True, True, [A, C])


def test_a_database_is_moved_not_deleted(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = running(A, B, members=[A, B])
    looks = {A: two.__dict__, B: two.__dict__, C: DOWN.__dict__}
    assert run(capsys, host, state="prepared", looks=looks)["through"] == [A, B]
    assert not (host / "mnesia" / C).exists()
    assert (host / "mnesia" / f"{C}.set-aside" / "schema.DAT").read_text() == "tables"


def test_what_was_set_aside_stays_until_all_members_run(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = host / "mnesia" / "rabbit@localhost"
    old.mkdir()
    answer(host, running(A, C))
    assert run(capsys, host, expected=[A], replaced="rabbit@localhost")["missing"] == [B]
    assert old.exists()
    answer(host, running(A, B, C))
    assert run(capsys, host, replaced="rabbit@localhost")["changed"]
    assert not old.exists()


def test_members_too_many_are_named(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(host, running(A, B, C, "rabbit@d", members=[*MEMBERS, "rabbit@d"]))
    assert run(capsys, host)["foreign"] == ["RabbitMQ: member rabbit@d"]


def test_a_member_is_taken_out_only_by_a_majority(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(host, running(C))
    assert "no majority" in run(capsys, host, state="absent", node=A)["msg"]
    answer(host, running(B, C))
    assert run(capsys, host, state="absent", node=A)["changed"]
    assert f"--silent forget_cluster_node {A}" in (host / "calls").read_text()


def test_a_member_that_runs_is_not_taken_out(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(host, running(A, B, C))
    assert "stop it" in run(capsys, host, state="absent", node=A)["msg"]


def test_a_node_that_is_cut_off_fails_with_the_reason(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(host, running(C))
    assert A in run(capsys, host, expected=[A])["msg"]
