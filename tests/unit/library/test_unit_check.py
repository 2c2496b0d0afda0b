# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Units that do not run, and what mends them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import unit_check as library
from ansible.module_utils.kilonova.system import unit_check
from ansible.module_utils.kilonova.system.units import Unit

from tests.unit.module_utils.system.sample_units import STARTED, unit


@pytest.mark.parametrize(
    ("now", "reason", "command"),
    [
        ({}, "", ""),
        ({"LoadState": "masked", "ActiveState": "inactive"}, "is masked", "unmask {0} && systemctl start {0}"),
        ({"LoadState": "not-found"}, "cannot be loaded (not-found)", "ansible-playbook site.yml"),
        ({"ActiveState": "failed", "Result": "exit-code"}, "failed (exit-code)", "restart {0}"),
        ({"ActiveState": "inactive"}, "is inactive, and systemd is not starting it any more", "start {0}"),
        ({"UnitFileState": "disabled"}, "runs, but does not start at boot", "enable {0}"),
    ],
)  # fmt: skip
def test_each_reason_comes_with_its_command(now: dict[str, str], reason: str, command: str) -> None:
    one = unit({"enabled": True}, **now)
    found, mends, hopeless = unit_check.judge(one, 0, STARTED + 60)
    assert found == reason and mends.removeprefix("systemctl ") == command.format(one.name)
    assert hopeless


class Systemctl:
    """Gives a unit one state after the other."""

    def __init__(self, *states: dict[str, str]) -> None:
        self.states = list(states)

    def read(self, units: list[Unit]) -> None:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        units[0].now = {**units[0].now, **state}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_check, "POLL_SECONDS", 0.0)


def test_a_unit_that_is_starting_is_waited_for() -> None:
    starting = {"ActiveState": "activating", "SubState": "start"}
    systemctl = Systemctl(starting, starting, {"ActiveState": "active", "SubState": "running"})
    assert unit_check.find_broken(systemctl, [unit({"enabled": True})], 0, 5) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("restarts", ["0", "2"])
def test_a_unit_that_dies_repeatedly_gets_less_time(restarts: str) -> None:
    starting = {"ActiveState": "activating", "SubState": "start", "NRestarts": restarts}
    systemctl = Systemctl(starting, starting, starting, {"ActiveState": "active", "SubState": "running"})
    broken = unit_check.find_broken(systemctl, [unit()], 0, 5)  # type: ignore[arg-type]
    assert [one["reason"] for one in broken] == ([] if restarts == "0" else ["is activating (start)"])


def test_a_broken_unit_leaves_less_time_to_the_others() -> None:
    starting = {"ActiveState": "activating", "SubState": "start"}

    class Two(Systemctl):
        def read(self, units: list[Unit]) -> None:
            super().read(units)
            units[1].now = {**units[1].now, "ActiveState": "failed", "Result": "exit-code"}

    systemctl = Two(starting, starting, {"ActiveState": "active", "SubState": "running"})
    units = [unit(), unit({"name": "other"})]
    broken = unit_check.find_broken(systemctl, units, 0, 5)  # type: ignore[arg-type]
    assert [one["reason"] for one in broken] == ["is activating (start)", "failed (exit-code)"]


def test_a_unit_that_never_starts_is_broken() -> None:
    systemctl = Systemctl({"ActiveState": "activating", "SubState": "auto-restart"})
    (broken,) = unit_check.find_broken(systemctl, [unit()], 0.05, 5)  # type: ignore[arg-type]
    assert broken["reason"] == "is activating (auto-restart)"
    assert broken["command"].startswith("systemctl restart ")


def test_what_is_returned(monkeypatch: pytest.MonkeyPatch, run_module: Callable[..., dict[str, Any]]) -> None:
    failed = {"ActiveState": "failed", "Result": "exit-code", "LoadState": "loaded"}
    monkeypatch.setattr(unit_check, "Systemctl", lambda module: Systemctl(failed))
    monkeypatch.setattr(unit_check, "unit_log", lambda name, lines: f"{lines} lines of {name}")
    units = [{"name": "nova-api", "title": "Nova"}, {"name": "old.service", "title": "Old", "state": "stopped"}]
    result = run_module(library, units=units)
    assert result["broken"] == [
        {
            "unit": "nova-api.service",
            "title": "Nova",
            "reason": "failed (exit-code)",
            "command": "systemctl restart nova-api.service",
            "log": "10 lines of nova-api.service",
        }
    ]


STATISTICS = """# pxname,svname,qcur,status,weight,
nova,FRONTEND,,OPEN,,
nova,ctl1,0,no check,1,
nova,BACKEND,0,UP,1,
neutron,ctl1,0,MAINT,1,
neutron,BACKEND,0,DOWN,0,
glance,ctl1,0,DRAIN (agent),1,

"""


def test_servers_that_were_taken_out_of_haproxy(tmp_path: Path) -> None:
    path = str(tmp_path / "admin.sock")
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen()

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                asked.append(connection.recv(100))
                connection.sendall(STATISTICS.encode())

        thread = threading.Thread(target=answer)
        thread.start()
        found = list(unit_check.switched_off(unit_check.statistics(path)))
        thread.join()
    assert asked == [b"show stat\n"]
    assert [one["reason"] for one in found] == [
        "sends no requests to neutron/ctl1, which was set to MAINT at run time",
        "sends no requests to glance/ctl1, which was set to DRAIN at run time",
    ]
    assert list(unit_check.switched_off(unit_check.statistics(str(tmp_path / "absent")))) == []
