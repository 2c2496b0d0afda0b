# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The rollback of a network change.

The scripts run in a shell; instead of ifup, ip and systemctl there are programs that only record their calls.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.kilonova.network import rollback

OLD = "auto eth0\niface eth0 inet dhcp\n"
NEW = "auto br0\niface br0 inet dhcp\n"
PROGRAMS = ("ifup", "ifdown", "ip", "systemctl", "sync")


class Host:
    """A directory in place of a host: interfaces file, state directory, and programs that record their calls."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = root / "interfaces"
        self.file.write_text(OLD)
        self.extra = root / "99-cloud.cfg"
        self.directory = root / "state"
        self.units = root / "units"
        self.calls = root / "calls"
        self.bin = root / "bin"
        self.bin.mkdir()
        self.program()
        monkeypatch.setattr(rollback, "SYSTEM_UNITS", str(self.units))

    def program(self, **bodies: str) -> None:
        """Write the programs; a body decides what one of them does beyond writing down its call."""
        for name in PROGRAMS:
            script = f'#!/bin/sh\necho "{name} $*" >>{self.calls}\n{bodies.get(name, "")}\n'
            (self.bin / name).write_text(script)
            (self.bin / name).chmod(0o755)

    def change(self, token: str = "t1", text: str = NEW) -> rollback.Change:
        """The change from OLD to a text."""
        return rollback.Change(
            token=token,
            seconds=60,
            files={str(self.file): text, str(self.extra): "disabled\n"},
            interface="eth0",
            down=["eth0"],
            up=["eth0", "br0"],
            restore=["eth0"],
            remove_links=["br0"],
        )

    def save(self, change: rollback.Change) -> None:
        """Arm a change."""
        rollback.save(change, str(self.directory))

    def run(self, script: str, *arguments: str) -> int:
        """Run one of the scripts; returns its exit code."""
        environment = {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}"}
        command = ["sh", str(self.directory / script), *arguments]
        return subprocess.run(command, env=environment, check=False, timeout=20).returncode

    def called(self) -> list[str]:
        """The recorded calls."""
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def status(self) -> dict[str, Any]:
        """Where the change stands."""
        return rollback.status(str(self.directory))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host with the configuration OLD."""
    return Host(tmp_path, monkeypatch)


def test_arming_changes_nothing_yet(host: Host) -> None:
    host.save(host.change())
    assert host.file.read_text() == OLD
    assert host.called() == []
    assert host.status() == {"token": "t1", "armed": True, "applied": False, "undone": ""}
    assert (host.units / "networking.service.wants" / rollback.BOOT_UNIT).is_file()


def test_apply_takes_down_the_old_installs_and_brings_up_the_new(host: Host) -> None:
    host.save(host.change())
    assert host.run("apply") == 0
    assert host.file.read_text() == NEW
    assert host.extra.read_text() == "disabled\n"
    calls = [call for call in host.called() if not call.startswith("systemctl")]
    assert calls == [
        "ifdown --force eth0",
        "ip address flush dev eth0 scope global",
        "ifup --force eth0",
        "ifup --force br0",
    ]
    assert host.status()["applied"]


def test_interface_of_a_hotplug_unit_is_stopped_with_it(host: Host) -> None:
    host.save(host.change())
    host.run("apply")
    assert "systemctl stop ifup@eth0.service" in host.called()


def test_way_back_restores_every_file(host: Host) -> None:
    host.save(host.change())
    host.run("apply")
    host.calls.unlink()
    assert host.run("rollback", "timer") == 0
    assert host.file.read_text() == OLD
    assert not host.extra.exists()
    assert host.status() == {"token": "t1", "armed": False, "applied": True, "undone": "timer"}
    assert host.called()[0] == "systemctl stop kilonova-bridge-apply-t1.timer kilonova-bridge-apply-t1.service"
    assert host.called()[1:] == [
        "ifdown --force br0",
        "ifdown --force eth0",
        "ip link delete dev br0",
        "ip address flush dev eth0 scope global",
        "ifup --force eth0",
        "sync -f .",
    ]
    assert list(host.units.glob("**/*.service")) == []


def test_at_boot_only_files_are_restored(host: Host) -> None:
    host.save(host.change())
    host.run("apply")
    host.calls.unlink()
    assert host.run("rollback", "boot") == 0
    assert host.file.read_text() == OLD
    assert host.called() == ["sync -f ."]
    assert host.status()["undone"] == "boot"


def test_failed_ifup_starts_the_way_back(host: Host) -> None:
    host.save(host.change())
    host.program(ifup='[ "$2" != br0 ]')
    assert host.run("apply") == 1
    assert host.called()[-1] == "systemctl start --no-block kilonova-bridge-rollback-t1.service"
    assert not host.status()["applied"]


def test_confirmed_change_stays(host: Host) -> None:
    host.save(host.change())
    host.run("apply")
    with rollback.locked(str(host.directory)):
        rollback.disarm(str(host.directory))
    host.calls.unlink()
    assert host.run("rollback", "timer") == 0
    assert host.file.read_text() == NEW
    assert host.called() == []
    assert list((host.directory / "saved").iterdir()) == []
    assert list(host.units.glob("**/*.service")) == []


def test_second_change_before_confirmation_returns_to_the_first_files(host: Host) -> None:
    host.save(host.change())
    host.run("apply")
    second = host.change("t2", "auto br0\niface br0 inet manual\n")
    second.restore, second.remove_links = ["br0"], []
    host.save(second)
    host.run("apply")
    assert "manual" in host.file.read_text()
    host.calls.unlink()
    host.run("rollback", "timer")
    assert host.file.read_text() == OLD
    assert not host.extra.exists()
    assert "ip link delete dev br0" in host.called()
    assert "ifup --force eth0" in host.called()


def test_modes_of_files_are_kept(host: Host) -> None:
    host.file.chmod(0o600)
    host.save(host.change())
    host.run("apply")
    assert host.file.stat().st_mode & 0o777 == 0o600
    host.run("rollback", "timer")
    assert host.file.stat().st_mode & 0o777 == 0o600


def test_lock_is_waited_for(host: Host) -> None:
    host.save(host.change())
    with (
        rollback.locked(str(host.directory)),
        pytest.raises(rollback.RollbackError, match="has been running for over 0 s"),
        rollback.locked(str(host.directory), timeout=0.3),
    ):
        pass


@pytest.mark.parametrize(
    ("failing", "message"),
    [
        (rollback.TIMER, "could not arm the rollback timer, so nothing was changed: no bus"),
        (rollback.APPLY, "could not start the change, so nothing was changed: no bus"),
    ],
)
def test_without_systemd_run_nothing_is_changed(host: Host, failing: str, message: str) -> None:
    def run(command: list[str]) -> tuple[int, str, str]:
        refused = command[0] == "systemd-run" and any(f"--unit={failing}-" in word for word in command)
        return (1, "", "no bus\n") if refused else (0, "", "")

    host.save(host.change())
    with pytest.raises(rollback.RollbackError, match=message):
        rollback.start(host.change(), run, str(host.directory))
    assert not host.status()["armed"]
    assert host.file.read_text() == OLD


def test_timer_is_armed_before_the_change_starts(host: Host) -> None:
    commands: list[list[str]] = []

    def run(command: list[str]) -> tuple[int, str, str]:
        commands.append(command)
        return 0, "", ""

    rollback.start(host.change(), run, str(host.directory))
    assert [word for command in commands for word in command if word.startswith(("--unit=", "--on-active="))] == [
        "--on-active=60",
        "--unit=kilonova-bridge-rollback-t1",
        "--on-active=1",
        "--unit=kilonova-bridge-apply-t1",
    ]
    assert all("--timer-property=AccuracySec=100ms" in command for command in commands)
