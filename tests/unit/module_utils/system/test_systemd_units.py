# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system import systemd_units
from ansible.module_utils.kilonova.system.systemctl import parse_show
from ansible.module_utils.kilonova.system.units import Unit
from ansible.module_utils.testing import patch_module_args

from tests.unit.module_utils.system.sample_units import START, STARTED, stamp, unit

FAKE_SYSTEMCTL = """#!/bin/sh
# Prints a file for show, and records every other call. Services that are shown alone are active.
if [ "$1 $2" = "show --property=Id,ActiveState" ]; then echo ActiveState=active
elif [ "$1" = show ]; then cat "$FAKE/show"
elif [ "$1" = "$(cat "$FAKE/refused" 2>/dev/null)" ]; then echo "Job for $3 failed." >&2; exit 1
else echo "$*" >> "$FAKE/calls"; cp "$FAKE/after" "$FAKE/show"; fi
"""


class Fake:
    """A systemctl that shows one state before the first changing call and another after it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def states(self, before: list[Unit], after: list[Unit]) -> None:
        for name, units in (("show", before), ("after", after)):
            blocks = ("\n".join(f"{key}={value}" for key, value in shown.now.items()) for shown in units)
            (self.directory / name).write_text("\n\n".join(blocks) + "\n")

    def refuse(self, verb: str) -> None:
        (self.directory / "refused").write_text(verb)

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
        systemd_units.run(AnsibleModule(argument_spec=systemd_units.ARGUMENT_SPEC, supports_check_mode=True))
    return dict(json.loads(capsys.readouterr().out))


def test_running_units_are_restarted_and_others_started(
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
        # A restart would reach units that are PartOf= it and have just started.
        "start --no-block -- y.service",
    ]
    assert result["changed"] is True
    assert (result["started"], result["enabled"]) == (["y.service"], ["y.service"])
    assert result["restarted"] == [{"name": "x.service", "reason": f"{new} changed"}]
    assert result["diff"]["after"].splitlines()[1] == "y.service: active, enabled"


def test_a_unit_reloads_what_it_can_read_again(fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new, units = stamp(tmp_path / "new", STARTED + 1), [{"name": "x", "reloads": [str(tmp_path / "new")]}]
    fake.states([unit(StateChangeTimestamp=START)], [unit()])
    result = run(capsys, units=units, _ansible_diff=True)
    assert fake.calls() == ["reload -- x.service"]
    assert result["reloaded"] == [{"name": "x.service", "reason": f"{new} changed"}]
    assert (result["changed"], result["restarted"]) == (True, [])
    # Since that reload it has not changed.
    later = "Sun 2026-11-22 18:11:29.087918 UTC"
    fake.states([unit(StateChangeTimestamp=later)], [])
    assert run(capsys, units=units)["changed"] is False
    # A dry run that would write it.
    fake.states([unit(StateChangeTimestamp=later)], [])
    assert run(capsys, units=units, pending=[new], _ansible_check_mode=True)["reloaded"] != []


def test_a_restart_needs_no_reload(fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = stamp(tmp_path / "new", STARTED + 1)
    fake.states([unit(StateChangeTimestamp=START)], [unit()])
    run(capsys, units=[{"name": "x", "reads": [new], "reloads": [new]}])
    assert fake.calls() == ["reset-failed -- x.service", "restart --no-block -- x.service"]


def test_a_unit_that_waits_to_be_started_again_does_not_reload(
    fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = stamp(tmp_path / "new", STARTED + 1)
    waits = {"ActiveState": "activating", "SubState": "auto-restart", "StateChangeTimestamp": START}
    fake.states([unit(**waits)], [unit()])
    result = run(capsys, units=[{"name": "x", "reloads": [new]}])
    assert fake.calls() == ["reset-failed -- x.service", "restart --no-block -- x.service"]
    assert result["restarted"] == [{"name": "x.service", "reason": f"{new} changed"}]


def test_a_reload_that_is_refused_is_tried_again_by_the_next_run(
    fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    stamp(new, STARTED + 1)
    fake.states([unit(StateChangeTimestamp=START)], [unit()])
    fake.refuse("reload")
    result = run(capsys, units=[{"name": "x", "reloads": [str(new)]}])
    assert "'systemctl reload -- x.service' failed" in result["msg"]
    assert new.stat().st_mtime > STARTED + 1


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
def test_a_dry_run_predicts_restarts_by_its_files(
    fake: Fake, capsys: pytest.CaptureFixture[str], pending: str, restarts: bool
) -> None:
    units = [{"name": "x", "reads": ["/etc/x/x.conf", "/etc/x/conf.d"]}]
    fake.states([unit()], [])
    result = run(capsys, units=units, pending=[pending], _ansible_check_mode=True)
    assert result["restarted"] == ([{"name": "x.service", "reason": f"{pending} changed"}] if restarts else [])
    assert fake.calls() == []
    # A real run reads the time stamps of the files.
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


MASKED = {"LoadState": "masked", "UnitFileState": "masked", "ActiveState": "inactive"}


def test_a_masked_unit_says_how_to_unmask_it(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.states([unit(**MASKED)], [])
    result = run(capsys, units=[{"name": "x"}])
    assert result["failed"] and "x.service is masked" in result["msg"]
    assert "run 'systemctl unmask x.service' on the host" in result["msg"]
    assert fake.calls() == []


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (MASKED, "systemctl unmask x.service"),
        # It still runs, and nothing else differs.
        ({"LoadState": "masked"}, "systemctl unmask x.service"),
        ({"LoadState": "bad-setting", "ActiveState": "inactive", "LoadError": "no ExecStart"}, "no ExecStart"),
    ],
)
def test_check_mode_goes_on_after_a_unit_that_needs_the_operator(
    fake: Fake, capsys: pytest.CaptureFixture[str], now: dict[str, str], words: str
) -> None:
    fake.states([unit(**now), unit(ActiveState="inactive")], [])
    result = run(capsys, units=[{"name": "x"}, {"name": "y"}], _ansible_check_mode=True)
    assert not result.get("failed")
    assert len(result["needs_you"]) == 1 and words in result["needs_you"][0]
    # A run could not start the first one.
    assert result["started"] == ["y.service"]
    assert fake.calls() == []


def test_a_broken_unit_file_that_this_run_would_write_needs_nobody(
    fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.states([unit(LoadState="bad-setting", ActiveState="inactive")], [])
    pending = ["/etc/systemd/system/x.service"]
    result = run(capsys, units=[{"name": "x"}], pending=pending, _ansible_check_mode=True)
    assert (result["needs_you"], result["started"]) == ([], ["x.service"])


def test_a_unit_masked_on_purpose_needs_nobody(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.states([unit(**MASKED), unit(**MASKED)], [])
    units = [{"name": "x", "masked": True}, {"name": "y", "state": "stopped"}]
    result = run(capsys, units=units, _ansible_check_mode=True)
    assert (result["changed"], result["needs_you"]) == (False, [])


def test_a_unit_that_fails_shows_its_log(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.states([unit(ActiveState="inactive")], [unit(ActiveState="failed", Result="exit-code")])
    began = time.monotonic()
    result = run(capsys, units=[{"name": "x"}])
    assert time.monotonic() - began < 10  # waiting longer is pointless
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
    """systemd refuses to start it while the service runs, and a client of the first socket would start the service."""
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


def test_blocks_of_systemctl_show() -> None:
    assert parse_show("Id=a\nX=1=2\n\nId=b\nX=\n") == [{"Id": "a", "X": "1=2"}, {"Id": "b", "X": ""}]


def test_an_empty_list_is_unchanged(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, units=[])
    assert (result["changed"], result["restarted"], result["masked"], fake.calls()) == (False, [], [], [])
