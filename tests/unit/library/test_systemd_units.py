# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import systemd_units
from ansible.module_utils.testing import patch_module_args
from systemd_units import (
    Unit,
    all_listening,
    full_name,
    in_group,
    listening,
    newest,
    not_ready,
    parse_show,
    parse_timestamp,
    plan,
    restart_reason,
    sockets_of,
)

START = "Sun 2026-11-22 18:11:27.087918 UTC"
STARTED = 1795371087.087918


def unit(wanted: dict[str, Any] | None = None, /, **now: Any) -> Unit:
    """A running, enabled service, as systemd would show it, changed by the arguments."""
    entry: dict[str, Any] = {"name": "x.service", "state": "started", "enabled": None, "masked": None}
    shown = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "UnitFileState": "enabled"}
    shown |= {"ExecMainStartTimestamp": START, "ExecMainPID": "7", "Type": "simple", "NeedDaemonReload": "no"}
    return Unit(**{**entry, "reads": [], "ports": [], **(wanted or {})}, now=shown | now)


def verbs(wanted: dict[str, Any] | None = None, /, **now: Any) -> list[str]:
    planned = unit(wanted, **now)
    plan(planned)
    return planned.verbs


def stamp(path: Path, when: float) -> str:
    path.touch()
    os.utime(path, (when, when))
    return str(path)


def test_timestamps_and_names() -> None:
    assert parse_timestamp(START) == pytest.approx(STARTED, abs=1e-5)
    assert parse_timestamp("Sun 2026-11-22 18:11:27 UTC") == 1795371087
    assert [full_name(name) for name in ("a", "a.socket", "a@b.c")] == ["a.service", "a.socket", "a@b.c.service"]
    assert parse_show("Id=a\nX=1=2\n\nId=b\nX=\n") == [{"Id": "a", "X": "1=2"}, {"Id": "b", "X": ""}]


@pytest.mark.parametrize(
    ("wanted", "now", "expected"),
    [
        ({}, {}, []),
        ({"enabled": True}, {}, []),
        ({"enabled": True}, {"UnitFileState": "disabled"}, ["enable"]),
        ({"enabled": True}, {"UnitFileState": "static"}, []),
        ({"enabled": True}, {"UnitFileState": "enabled-runtime"}, ["enable"]),
        ({"enabled": False}, {}, ["disable"]),
        ({"enabled": False}, {"UnitFileState": "static"}, []),
        ({"enabled": True}, {"UnitFileState": "", "LoadState": "not-found", "ActiveState": "inactive"},
         ["enable", "start"]),
        ({}, {"ActiveState": "inactive"}, ["start"]),
        ({}, {"ActiveState": "failed"}, ["start"]),
        ({}, {"ActiveState": "deactivating"}, ["start"]),
        ({}, {"ActiveState": "activating"}, []),
        ({"state": "stopped"}, {}, ["stop"]),
        ({"state": "stopped"}, {"ActiveState": "activating"}, ["stop"]),
        ({"state": "stopped"}, {"ActiveState": "failed"}, []),
        ({"masked": True, "enabled": True}, {}, ["mask", "stop"]),
        ({"masked": True}, {"LoadState": "masked", "ActiveState": "inactive"}, []),
        ({"masked": False}, {"LoadState": "masked", "UnitFileState": "masked", "ActiveState": "inactive"},
         ["unmask", "start"]),
        ({}, {"NeedDaemonReload": "yes"}, ["restart"]),
    ],
)  # fmt: skip
def test_plan(wanted: dict[str, Any], now: dict[str, str], expected: list[str]) -> None:
    assert verbs(wanted, **now) == expected


def test_a_oneshot_unit_that_has_succeeded_is_not_started_again() -> None:
    now = {"Type": "oneshot", "RemainAfterExit": "no", "ActiveState": "inactive", "Result": "success"}
    assert verbs(**now) == []
    assert verbs(**now | {"Result": "exit-code"}) == ["start"]
    assert verbs(**now, ExecMainStartTimestamp="") == ["start"]
    assert verbs(**now | {"RemainAfterExit": "yes"}) == ["start"]


def test_a_newer_file_restarts(tmp_path: Path) -> None:
    old, new = stamp(tmp_path / "old", STARTED - 1), stamp(tmp_path / "new", STARTED + 1)
    assert verbs({"reads": [old, str(tmp_path / "missing")]}) == []
    planned = unit({"reads": [old, new]})
    plan(planned)
    assert (planned.verbs, planned.reason) == (["restart"], f"{new} changed")
    assert verbs({"reads": [new]}, ActiveState="inactive") == ["start"]
    assert verbs({"reads": [new], "state": "stopped"}, ActiveState="inactive") == []


def test_a_file_of_the_same_tick_restarts(tmp_path: Path) -> None:
    assert restart_reason(unit(), [stamp(tmp_path / "a", STARTED - 0.005)])[0] == f"{tmp_path}/a changed"
    assert restart_reason(unit(), [stamp(tmp_path / "a", STARTED - 0.05)]) == ("", 0.0)


def test_a_directory_is_as_new_as_its_newest_file(tmp_path: Path) -> None:
    directory = tmp_path / "conf.d" / "below"
    directory.mkdir(parents=True)
    path = stamp(directory / "x", STARTED + 5)
    for parent in (directory, directory.parent):
        os.utime(parent, (STARTED - 1, STARTED - 1))
    assert newest(str(directory.parent)) == (STARTED + 5, path)
    (directory / "x").unlink()
    assert newest(str(directory.parent))[1] == str(directory)  # a removed file counts


def test_unit_files_and_drop_ins_count_and_generated_ones_do_not(tmp_path: Path) -> None:
    new = stamp(tmp_path / "new", STARTED + 1)
    assert verbs(FragmentPath=new) == ["restart"]
    assert verbs(DropInPaths=f"/nonexistent/a.conf {new}") == ["restart"]
    assert verbs(SourcePath=new, FragmentPath="/run/systemd/generator.late/x.service") == ["restart"]
    assert systemd_units.definition_files(unit(FragmentPath="/run/systemd/generator.late/x.service")) == []


def test_a_unit_without_a_main_process_is_as_old_as_its_activation(tmp_path: Path) -> None:
    new = stamp(tmp_path / "new", STARTED + 1)
    assert verbs({"reads": [new]}, ExecMainStartTimestamp="", InactiveExitTimestamp=START) == ["restart"]
    assert verbs({"reads": [new]}, ExecMainStartTimestamp="", InactiveExitTimestamp="") == []


def test_ports_are_those_of_the_units_own_processes() -> None:
    text = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100\n"
        "   1: 0100007F:1389 0100007F:0016 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100\n"
    )
    assert listening(text) == {5000: {"4711"}}
    with open("/proc/self/cgroup", encoding="ascii") as stream:
        own_group = stream.readline().strip().split(":", 2)[2]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert all_listening()[port] & sockets_of(own_group)
        assert not sockets_of("/system.slice/there-is-no-such.service")
    assert port not in all_listening()


def test_control_groups_of_both_versions() -> None:
    group = "/system.slice/nova-api.service"
    assert in_group("0::/system.slice/nova-api.service\n", group)
    assert in_group("4:cpu:/\n1:name=systemd:/machine/floor/system.slice/nova-api.service/sub\n", group)
    assert not in_group("0::/system.slice/nova-api.service-other\n", group)


@pytest.mark.parametrize(
    ("now", "lacks", "hopeless"),
    [
        ({}, "", False),
        ({"ActiveState": "failed", "Result": "exit-code"}, "failed (exit-code)", True),
        ({"ActiveState": "activating", "SubState": "start"}, "is activating (start)", False),
        ({"Job": "7"}, "still runs as it did before, and its restart waits for another unit", False),
        ({"NRestarts": "2"}, "", False),
        ({"NRestarts": "3"}, "died and was restarted by systemd 3 times", True),
        ({"ActiveState": "inactive", "ConditionResult": "no", "ConditionTimestamp": START}, "a condition of its unit "
         "file is not met (see 'systemctl status')", True),
        # Its job still waits for another unit, so that systemd has not looked at the conditions.
        ({"ActiveState": "inactive", "SubState": "dead", "ConditionResult": "no", "ConditionTimestamp": "",
          "Job": "7"}, "is inactive (dead)", False),
        ({"ActiveState": "inactive", "SubState": "dead"}, "is inactive, and systemd is not starting it any more", True),
        # It ran before; what happened to it then is not a condition.
        ({"ActiveState": "inactive", "SubState": "dead", "ConditionResult": "no", "ConditionTimestamp": START,
          "InactiveExitTimestamp": START, "Job": "7"}, "is inactive (dead)", False),
        ({"ActiveState": "active", "SubState": "exited", "ExecMainPID": "0"}, "", False),
    ],
)  # fmt: skip
def test_not_ready(now: dict[str, str], lacks: str, hopeless: bool) -> None:
    assert not_ready(unit(**now), 0, 1.5, {}, STARTED + 2) == (lacks, hopeless)


def test_not_ready_before_it_has_settled_and_listens() -> None:
    assert not_ready(unit(), 0, 1.5, {}, STARTED + 1) == ("has been running for less than 1.5 s", False)
    assert not_ready(unit({"ports": [5000]}), 0, 1.5, {}, STARTED + 2) == ("does not listen on port 5000", False)
    others = {5000: {"not ours"}}
    assert not_ready(unit({"ports": [5000]}), 0, 1.5, others, STARTED + 2) == ("does not listen on port 5000", False)


FAKE_SYSTEMCTL = """#!/bin/sh
# Answers show from a file, and records every other call. Services that are asked for by themselves are active.
if [ "$1 $2" = "show --property=Id,ActiveState" ]; then echo ActiveState=active
elif [ "$1" = show ]; then cat "$FAKE/show"; else echo "$*" >> "$FAKE/calls"; cp "$FAKE/after" "$FAKE/show"; fi
"""


class Fake:
    """A systemctl that shows one state before the first changing call and another after it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def states(self, before: list[Unit], after: list[Unit]) -> None:
        for name, units in (("show", before), ("after", after)):
            blocks = ("\n".join(f"{key}={value}" for key, value in shown.now.items()) for shown in units)
            (self.directory / name).write_text("\n\n".join(blocks) + "\n")

    def calls(self) -> list[str]:
        path = self.directory / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(FAKE_SYSTEMCTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(tmp_path))
    return Fake(tmp_path)


def run(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        systemd_units.main()
    return dict(json.loads(capsys.readouterr().out))


def test_what_runs_is_restarted_and_what_does_not_is_started(
    fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = stamp(tmp_path / "new", STARTED + 1)
    up = [unit(), unit()]
    fake.states([unit(), unit(ActiveState="failed", UnitFileState="disabled")], up)
    units = [{"name": "x", "reads": [new]}, {"name": "y", "enabled": True}]
    result = run(capsys, units=units, _ansible_diff=True)
    assert fake.calls() == [
        "enable --quiet -- y.service",
        "reset-failed -- x.service y.service",
        "restart --no-block -- x.service",
        # A restart would reach units that are PartOf= it and have only just been started.
        "start --no-block -- y.service",
    ]
    assert result["changed"] is True
    assert (result["started"], result["enabled"]) == (["y.service"], ["y.service"])
    assert result["restarted"] == [{"name": "x.service", "reason": f"{new} changed"}]
    assert result["diff"]["after"].splitlines()[1] == "y.service: active, enabled"


def test_check_mode_changes_nothing(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.states([unit(LoadState="not-found", ActiveState="inactive", UnitFileState="")], [])
    result = run(capsys, units=[{"name": "x", "enabled": True}], _ansible_check_mode=True)
    assert (result["changed"], result["started"], result["enabled"]) == (True, ["x.service"], ["x.service"])
    assert fake.calls() == []


@pytest.mark.parametrize(
    ("pending", "restarts"),
    [
        ("/etc/x/x.conf", True),
        ("/etc/x/conf.d/new.conf", True),
        ("/etc/systemd/system/x.service.d/kilonova.conf", True),
        ("/etc/systemd/system/x.service", True),
        ("/etc/x/x.conf.d", False),
        ("/etc/y", False),
    ],
)
def test_a_dry_run_knows_what_its_files_would_restart(
    fake: Fake, capsys: pytest.CaptureFixture[str], pending: str, restarts: bool
) -> None:
    units = [{"name": "x", "reads": ["/etc/x/x.conf", "/etc/x/conf.d"]}]
    fake.states([unit()], [])
    result = run(capsys, units=units, pending=[pending], _ansible_check_mode=True)
    assert result["restarted"] == ([{"name": "x.service", "reason": f"{pending} changed"}] if restarts else [])
    assert fake.calls() == []
    # In a real run the files themselves tell.
    fake.states([unit()], [])
    assert run(capsys, units=units, pending=[pending])["changed"] is False


def test_nothing_to_do_calls_nothing(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.states([unit()], [])
    assert run(capsys, units=[{"name": "x", "enabled": True}])["changed"] is False
    assert fake.calls() == []


def test_a_missing_unit_fails_before_anything_is_done(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    shown = [unit(LoadState="not-found", ActiveState="inactive"), unit(ActiveState="inactive")]
    fake.states(shown, shown)
    result = run(capsys, units=[{"name": "x"}, {"name": "y"}])
    assert result["msg"] == "x.service does not exist on this host; install the package that contains it"
    assert fake.calls() == ["daemon-reload"]


def test_a_masked_unit_says_how_to_unmask_it(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.states([unit(LoadState="masked", ActiveState="inactive")], [])
    assert "set masked: false to unmask it" in run(capsys, units=[{"name": "x"}])["msg"]


def test_a_unit_that_fails_shows_its_log(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.states([unit(ActiveState="inactive")], [unit(ActiveState="failed", Result="exit-code")])
    began = time.monotonic()
    result = run(capsys, units=[{"name": "x"}])
    assert time.monotonic() - began < 10  # it does not wait for what cannot come
    assert result["msg"].startswith(
        "1 of 1 units did not come up:\nx.service failed (exit-code)\n--- journal of x.service"
    )
    assert result["broken"] == [{"name": "x.service", "reason": "failed (exit-code)"}]


def test_waiting_ends_with_the_timeout(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.states([unit(ActiveState="activating", SubState="start")], [])
    result = run(capsys, units=[{"name": "x"}], timeout=1)
    assert "did not come up within 1 s:\nx.service is activating (start)" in result["msg"]


def test_without_wait_nothing_is_watched(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.states([unit(ActiveState="inactive")], [unit(ActiveState="failed")])
    assert run(capsys, units=[{"name": "x"}], wait=False)["started"] == ["x.service"]


def test_a_file_from_the_future_restarts_once(fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stamp(tmp_path / "future", time.time() + 9e8)
    fake.states([unit()], [unit()])
    result = run(capsys, units=[{"name": "x", "reads": [path]}])
    assert result["restarted"][0]["name"] == "x.service"
    assert os.stat(path).st_mtime <= time.time()


def test_a_further_socket_of_a_running_service(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    """systemd refuses to start it while the service runs, and the first socket's next client would start that."""
    first = unit(Id="x.socket", Triggers="x.service", ExecMainPID="0")
    new = unit(Id="x-tls.socket", Triggers="x.service", ExecMainPID="0", ActiveState="inactive", SubState="dead")
    listening = unit(Id="x-tls.socket", Triggers="x.service", ExecMainPID="0", SubState="listening")
    fake.states([first, new], [first, listening])
    run(capsys, units=[{"name": "x.socket"}, {"name": "x-tls.socket"}])
    assert "stop -- x.socket x.service" in fake.calls()
    assert "start --no-block -- x-tls.socket x.socket x.service" in fake.calls()


def test_a_socket_restarts_with_its_service(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    shown = unit(NeedDaemonReload="yes", Triggers="x.service", ExecMainPID="0")
    fake.states([shown], [shown])
    run(capsys, units=[{"name": "x.socket"}])
    assert fake.calls() == [
        "daemon-reload",
        "stop -- x.socket x.service",
        "reset-failed -- x.socket",
        "start --no-block -- x.socket x.service",
    ]
