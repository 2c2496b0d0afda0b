# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.kilonova.system import units
from ansible.module_utils.kilonova.system.units import (
    definition_files,
    foreign_drop_ins,
    full_name,
    newest,
    parse_timestamp,
    plan,
    restart_reason,
)

from tests.unit.module_utils.system.sample_units import START, STARTED, stamp, unit


def verbs(wanted: dict[str, Any] | None = None, /, **now: Any) -> list[str]:
    planned = unit(wanted, **now)
    plan(planned)
    return planned.verbs


def test_timestamps_and_names() -> None:
    assert parse_timestamp(START) == pytest.approx(STARTED, abs=1e-5)
    assert parse_timestamp("Sun 2026-11-22 18:11:27 UTC") == 1795371087
    assert [full_name(name) for name in ("a", "a.socket", "a@b.c")] == ["a.service", "a.socket", "a@b.c.service"]


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
    assert restart_reason(unit(), [stamp(tmp_path / "a", STARTED - 0.005)]) == f"{tmp_path}/a changed"
    assert restart_reason(unit(), [stamp(tmp_path / "a", STARTED - 0.05)]) == ""


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
    assert definition_files(unit(FragmentPath="/run/systemd/generator.late/x.service")) == []


def test_a_unit_without_a_main_process_is_as_old_as_its_activation(tmp_path: Path) -> None:
    new = stamp(tmp_path / "new", STARTED + 1)
    assert verbs({"reads": [new]}, ExecMainStartTimestamp="", InactiveExitTimestamp=START) == ["restart"]
    assert verbs({"reads": [new]}, ExecMainStartTimestamp="", InactiveExitTimestamp="") == []


def test_drop_ins_of_a_site_are_foreign(tmp_path: Path) -> None:
    own, site = tmp_path / "kilonova.conf", tmp_path / "override.conf"
    own.touch()
    site.touch()
    paths = ["/usr/lib/systemd/system/service.d/10-timeout-abort.conf", own, tmp_path / "deleted.conf", site]
    assert foreign_drop_ins(unit(DropInPaths=" ".join(map(str, paths)))) == [str(site)]
    assert foreign_drop_ins(unit()) == []


def test_a_deferred_drop_in_restarts_nothing_until_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "UNIT_FILES", str(tmp_path))
    directory = tmp_path / "x.service.d"
    directory.mkdir()
    own, sandbox = directory / "kilonova.conf", directory / "kilonova-sandbox.conf"
    stamp(own, STARTED - 5)
    # As config_files writes it. What happens in this test is newer than the process of the sample.
    (directory / "new").write_text("[Service]\n")
    (directory / "new").rename(sandbox)
    now = {"DropInPaths": f"{own} {sandbox}", "NeedDaemonReload": "yes"}
    assert verbs({"deferred": [str(sandbox)]}, **now) == []
    assert verbs(**now) == ["restart"]
    planned = unit({"deferred": [str(sandbox)]}, DropInPaths=str(own))
    plan(planned, [str(sandbox)])
    assert planned.verbs == []
    stamp(own, STARTED + 5)
    assert verbs({"deferred": [str(sandbox)]}, **now) == ["restart"]
    stamp(own, STARTED - 5)
    sandbox.unlink()
    assert verbs({"deferred": [str(sandbox)]}, DropInPaths=str(own)) == ["restart"]
