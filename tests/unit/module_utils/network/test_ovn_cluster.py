# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What becomes of OVN's databases: never a fresh one beside one that exists, with recorded output of OVS 3.5."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import ovn_cluster as library
import pytest
from ansible.module_utils.kilonova.network import ovn_cluster
from ansible.module_utils.kilonova.network.ovn_cluster import Look, Plan, look_from, plan, quorum_without, ready
from ansible.module_utils.testing import patch_module_args

A, B, C = MEMBERS = ["ssl:10.0.0.1:6643", "ssl:10.0.0.2:6643", "ssl:10.0.0.3:6643"]
LEADER = f"""\
9d63
Name: OVN_Northbound
Cluster ID: 5b3f (5b3f3c6b-9e46-4a6a-9b9a-7f7f1a6d6f7e)
Server ID: 9d63 (9d63c4b1-7c6f-4f45-8f0b-5a3e2b6c7d8e)
Address: {A}
Status: cluster member
Role: leader
Term: 3
Leader: self
Vote: self

Last Election started 1000 ms ago, reason: timeout
Election timer: 2000
Log: [2, 20]
Entries not yet committed: 0
Entries not yet applied: 0
Connections: ->6b1e <-6b1e (->44f0)
Disconnections: 1
Servers:
    9d63 (9d63 at {A}) (self) next_index=2 match_index=19
    6b1e (6b1e at {B}) next_index=20 match_index=19 last msg 602 ms ago
    44f0 (44f0 at {C}) next_index=20 match_index=19 last msg 90602 ms ago
"""
CLUSTER = "5b3f3c6b-9e46-4a6a-9b9a-7f7f1a6d6f7e"
IDS = {"9d63": A, "6b1e": B, "44f0": C}
BLANK = Look()


def member(sid: str, *connected: str, members: dict[str, str] | None = None, serving: bool = True) -> Look:
    return Look("clustered", IDS[sid], CLUSTER, sid, serving, members or IDS, [sid, *connected])


def test_a_status_says_who_is_a_member_and_who_is_connected() -> None:
    look = look_from(LEADER)
    assert look == Look("clustered", A, CLUSTER, "9d63", True, IDS, ["6b1e", "9d63"], leads=True)
    assert not look_from(LEADER.replace("Leader: self", "Leader: unknown")).serving
    assert not look_from(LEADER.replace("cluster member", "joining cluster")).serving


def test_where_no_host_has_a_database_the_first_begins_and_others_join_it() -> None:
    looks: dict[str, Look | None] = dict.fromkeys(MEMBERS, BLANK)
    assert plan("northbound", A, MEMBERS, looks) == Plan("create")
    assert plan("northbound", C, MEMBERS, looks) == Plan("join", (A,))


def test_no_database_is_made_while_a_host_that_may_have_one_is_away() -> None:
    found = plan("northbound", A, MEMBERS, {A: BLANK, B: BLANK, C: None})
    assert C in found.problem
    assert not found.action


def test_the_database_of_a_single_controller_becomes_the_first_member() -> None:
    looks: dict[str, Look | None] = {A: BLANK, B: Look("standalone"), C: None}
    assert plan("northbound", B, MEMBERS, looks) == Plan("convert")
    assert plan("northbound", A, MEMBERS, looks) == Plan("join", (B,))


def test_two_databases_with_other_content_are_left_alone() -> None:
    apart = Look("clustered", B, "another", "6b1e")
    for mine, other in [
        (Look("standalone"), Look("standalone")),
        (Look("standalone"), member("6b1e")),
        (member("9d63"), apart),
    ]:
        assert plan("northbound", A, MEMBERS, {A: mine, B: other, C: BLANK}).problem


def test_a_lost_database_joins_through_those_that_serve() -> None:
    looks = {A: member("9d63", serving=False), B: member("6b1e", "9d63"), C: BLANK}
    assert plan("northbound", C, MEMBERS, looks) == Plan("join", (B, A))


def test_a_member_that_was_kicked_is_made_anew_only_where_the_others_are_a_majority() -> None:
    two = {"9d63": A, "6b1e": B}
    gone = member("44f0", serving=False)
    looks: dict[str, Look | None] = {C: gone}
    looks |= {A: member("9d63", "6b1e", members=two), B: member("6b1e", "9d63", members=two)}
    assert plan("northbound", C, MEMBERS, looks).action == "anew"
    looks = {A: member("9d63", members=two), B: None, C: gone}
    assert plan("northbound", C, MEMBERS, looks) == Plan()


def test_members_start_as_they_are_after_a_power_cut() -> None:
    looks: dict[str, Look | None] = {IDS[sid]: member(sid, serving=False) for sid in IDS}
    assert all(plan("northbound", one, MEMBERS, looks) == Plan() for one in MEMBERS)


@pytest.mark.parametrize(("connected", "enough"), [(("6b1e", "44f0"), True), (("6b1e",), True), (("44f0",), False)])
def test_a_majority_is_counted_without_the_member_in_question(connected: tuple[str, ...], enough: bool) -> None:
    assert quorum_without(member("9d63", *connected), C) is enough
    assert not quorum_without(member("9d63", "6b1e", "44f0"), A)


def test_a_member_is_ready_with_those_that_are_expected() -> None:
    assert ready(member("9d63", "6b1e"), {A, B})
    assert not ready(member("9d63", "6b1e"), {A, C})
    assert not ready(member("9d63", "6b1e", serving=False), {A})


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with the northbound database of one controller. ovs-appctl prints "status"."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ovsdb-tool").write_text(
        '#!/bin/sh\necho "ovsdb-tool $*" >> "$FAKE/calls"\n'
        'case "$*" in\n'
        '*db-is-clustered*) grep -q clustered "$2" ;;\n'
        '*create-cluster*) { echo clustered; cat "$4"; } > "$3" ;;\n'
        '*join-cluster*) echo clustered > "$3" ;;\n'
        "esac\n"
    )
    (programs / "ovs-appctl").write_text(
        '#!/bin/sh\necho "ovs-appctl $*" >> "$FAKE/calls"\n'
        'case "$*" in *kick*) sed -i "/44f0 .*at/d" "$FAKE/status" ;; *) cat "$FAKE/status" ;; esac\n'
    )
    (programs / "systemctl").write_text('#!/bin/sh\necho "systemctl $*" >> "$FAKE/calls"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setattr(ovn_cluster, "POLL_SECONDS", 0.01)
    paths = {name: str(tmp_path / name) for name in ("file", "control", "schema_file")}
    database = ovn_cluster.Database(schema="OVN_Northbound", unit="ovn-ovsdb-server-nb.service", **paths)
    monkeypatch.setitem(ovn_cluster.DATABASES, "northbound", database)
    (tmp_path / "schema_file").write_text("schema\n")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    database = {"name": "northbound", "address": A, "members": MEMBERS, **arguments.pop("database", {})}
    given = {"databases": [database], "timeout": 0, **arguments}
    with patch_module_args(given), pytest.raises(SystemExit):
        library.main()
    return dict(json.loads(capsys.readouterr().out))


def looks(capsys: pytest.CaptureFixture[str], *others: str) -> list[dict[str, Any]]:
    """What this host and others, without a database, know."""
    mine = run(capsys, state="looked")["look"]
    return [mine, *({"northbound": {"wanted": one}} for one in others)]


def test_a_standalone_database_is_converted_while_its_server_is_down_and_kept(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (host / "file").write_text("switches\n")
    assert run(capsys, state="prepared", looks=looks(capsys, B))["changed"]
    assert (host / "file").read_text() == "clustered\nswitches\n"
    assert (host / "file.set-aside").read_text() == "switches\n"
    calls = (host / "calls").read_text().splitlines()
    stop, create = (next(n for n, call in enumerate(calls) if word in call) for word in ("stop", "create-cluster"))
    assert stop < create


def test_a_database_is_created_only_where_all_were_asked(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert C in run(capsys, state="prepared", looks=looks(capsys, B))["msg"]
    assert not (host / "file").exists()
    assert run(capsys, state="prepared", looks=looks(capsys, B, C))["changed"]
    assert (host / "file").read_text() == "clustered\nschema\n"


def test_a_member_joins_the_cluster_that_it_was_told(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = [{"northbound": {"cluster": CLUSTER, "members": [B, C]}}]
    assert run(capsys, state="joining", looks=known)["changed"]
    call = (host / "calls").read_text()
    assert f"--cid={CLUSTER} join-cluster" in call
    assert call.endswith(f"{A} {B} {C}\n")
    assert not run(capsys, state="joining", looks=known)["changed"]


def test_only_a_majority_takes_a_member_out(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (host / "control").touch()
    (host / "status").write_text(LEADER.replace("->6b1e <-6b1e", "(->6b1e)"))
    lost = {"address": C}
    assert "cannot be taken out" in run(capsys, state="absent", database=lost)["msg"]
    assert "kick" not in (host / "calls").read_text()
    (host / "status").write_text(LEADER)
    found = run(capsys, state="absent", database=lost, timeout=5)
    assert found["clusters"]["northbound"] == {"cluster": CLUSTER, "members": [A, B]}
    assert "cluster/kick OVN_Northbound 44f0" in (host / "calls").read_text()


def test_the_old_file_stays_until_all_members_are_connected(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (host / "file").write_text("clustered")
    (host / "file.set-aside").write_text("switches")
    (host / "control").touch()
    (host / "status").write_text(LEADER)
    assert run(capsys)["missing"] == [f"OVN northbound: {C}"]
    assert (host / "file.set-aside").exists()
    (host / "status").write_text(LEADER.replace("(->44f0)", "->44f0"))
    assert run(capsys)["changed"]
    assert not (host / "file.set-aside").exists()
