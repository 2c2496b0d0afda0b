# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Tests of the rollback of a network change, and of what network_bridge and its action plugin decide.

The scripts run in a shell, with programs that only write down how they were called instead of ifup, ip and systemctl.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import network_bridge
import pytest
from ansible.module_utils.kilonova.network import rollback

from plugins.action import network_bridge as action

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


# ------------------------------------------------------------------ the module
def test_other_managers_are_recognised(tmp_path: Path) -> None:
    root = f"{tmp_path}/"
    assert network_bridge.other_manager(2, root) == ""
    links = tmp_path / "run/systemd/netif/links"
    links.mkdir(parents=True)
    (links / "2").write_text("ADMIN_STATE=configured\nNETWORK_FILE=/run/systemd/network/10-netplan-eth0.network\n")
    (links / "3").write_text("ADMIN_STATE=unmanaged\n")
    assert network_bridge.other_manager(2, root) == "systemd-networkd (/run/systemd/network/10-netplan-eth0.network)"
    assert network_bridge.other_manager(3, root) == ""
    devices = tmp_path / "run/NetworkManager/devices"
    devices.mkdir(parents=True)
    (devices / "3").write_text("[device]\nmanaged=true\n")
    assert network_bridge.other_manager(3, root) == "NetworkManager"


def test_source_lines_name_files(tmp_path: Path) -> None:
    directory = tmp_path / "interfaces.d"
    directory.mkdir()
    for name in ("eth1", "eth2.bak", "50-cloud-init"):
        (directory / name).write_text("")
    found = network_bridge.expand(str(tmp_path), "source", "interfaces.d/*")
    assert [os.path.basename(path) for path in found] == ["50-cloud-init", "eth1", "eth2.bak"]
    found = network_bridge.expand(str(tmp_path), "source-directory", str(directory))
    assert [os.path.basename(path) for path in found] == ["50-cloud-init", "eth1"]


class Failed(Exception):
    """Raised by fail_json."""


class Module:
    """What the module's functions use of AnsibleModule."""

    check_mode = False
    _diff = False

    def __init__(self, missing: tuple[str, ...] = (), **params: Any) -> None:
        defaults = {name: option.get("default") for name, option in network_bridge.ARGUMENTS.items()}
        self.params = {**defaults, "interface": "eth0", "bridge": "br0", **params}
        self.missing = missing

    def fail_json(self, msg: str, **_: Any) -> None:
        """End with the message."""
        raise Failed(msg)

    def get_bin_path(self, name: str) -> str | None:
        """Where a program is."""
        return None if name in self.missing else f"/usr/sbin/{name}"

    def run_command(self, command: list[str]) -> tuple[int, str, str]:
        """The answer of `ip -json -details address show`."""
        assert command[0] == "ip"
        info = [
            {"local": "10.0.0.2", "prefixlen": 24, "scope": "global"},
            {"local": "fe80::1", "prefixlen": 64, "scope": "link"},
        ]
        common = {"mtu": 1500, "address": "02:00:00:00:00:01", "flags": ["UP"]}
        port = {"ifindex": 2, "ifname": "eth0", "master": "br0", "addr_info": [], **common}
        bridge = {"linkinfo": {"info_kind": "bridge", "info_data": {"stp_state": 0}}, "addr_info": info, **common}
        return 0, json.dumps([port, {"ifindex": 3, "ifname": "br0", **bridge}]), ""


def test_links_are_read_from_ip() -> None:
    found = network_bridge.links(Module())
    assert found["br0"] == {
        "index": 3, "kind": "bridge", "stp": 0, "mtu": 1500, "mac": "02:00:00:00:00:01", "up": True, "ports": ["eth0"],
        "addresses": ["10.0.0.2/24"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"bridge": "br-provider0", "veth": True}, "bridge = br-provider0: at most 11 characters"),
        ({"method": "static"}, "bridge_method = static, bridge_address = ''"),
        ({"address": "10.0.0.2/24"}, "bridge_method = auto, bridge_address = '10.0.0.2/24'"),
        ({"method": "static", "address": "10.0.0.300/24"}, "address = 10.0.0.300/24: "),
        ({"gateway_address": "router"}, "gateway_address = router: "),
    ],
)
def test_options_that_cannot_work(params: dict[str, Any], message: str) -> None:
    with pytest.raises(Failed) as failed:
        network_bridge.wanted_of(Module(**params))
    assert str(failed.value).startswith(message)


KERNEL = {"eth0": {"index": 2, "addresses": ["10.0.0.2/24"]}, "lo": {"index": 1, "addresses": []}}


@pytest.mark.parametrize(
    ("module", "text", "message"),
    [
        (Module(("brctl",)), OLD, "brctl is missing on the host. Install the package bridge-utils, then run again."),
        (Module(interface="eth7"), OLD, "flat_interface = eth7: the host has no such interface. Write one of: eth0."),
        (
            Module(),
            "auto lo\niface lo inet loopback\n",
            "flat_interface = eth0 has the address 10.0.0.2/24, but /etc/network/interfaces does not say where it "
            "comes "
            "from, so the bridge br0 would lose it. Set bridge_method to static (with bridge_address: 10.0.0.2/24 and "
            "bridge_gateway) or to dhcp, or describe eth0 in /etc/network/interfaces.",
        ),
    ],
)
def test_hosts_that_are_refused(module: Module, text: str, message: str) -> None:
    wanted = network_bridge.wanted_of(module)
    with pytest.raises(Failed) as failed:
        network_bridge.check_host(module, wanted, {"/etc/network/interfaces": text}, KERNEL)
    assert str(failed.value) == message


def test_host_that_is_fine() -> None:
    module = Module()
    wanted = network_bridge.wanted_of(module)
    network_bridge.check_host(module, wanted, {"/etc/network/interfaces": OLD}, KERNEL)


# ------------------------------------------------------------------ the action plugin
class Plugin(action.ActionModule):
    """The plugin with a list of answers in place of a host; None is a host that does not answer."""

    def __init__(self, answers: list[dict[str, Any] | None]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def ask(self, variables: dict[str, Any], **changes: Any) -> dict[str, Any] | None:
        """The next answer; the last one for ever."""
        self.asked.append(changes["state"])
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def status(armed: bool, applied: bool, undone: str = "") -> dict[str, Any]:
    """An answer of state=inspected."""
    return {"status": {"armed": armed, "applied": applied, "undone": undone}, "log": "ifup failed"}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not wait for a network."""
    for name in ("START_DELAY", "PAUSE"):
        monkeypatch.setattr(action, name, 0.01)
    monkeypatch.setattr(action, "RETURN_SECONDS", 0.1)


DEADLINE = 1e12


def test_confirms_over_a_connection_made_after_the_change() -> None:
    plugin = Plugin([None, status(True, False), None, status(True, True), {"changed": True}])
    assert plugin.confirm("t1", {}, DEADLINE) == {"changed": True}
    assert plugin.asked == ["inspected"] * 4 + ["confirmed"]


def test_gives_up_at_once_when_the_host_returned() -> None:
    plugin = Plugin([status(False, False, "timer")])
    assert plugin.confirm("t1", {}, DEADLINE) == {"failed": True}
    assert plugin.asked == ["inspected"]


def test_failure_says_that_the_host_came_back() -> None:
    plugin = Plugin([None, status(True, True), status(False, True, "timer")])
    text = plugin.explain({"failed": True}, "t1", {}, 60)["msg"]
    assert text.startswith(
        "The bridge was not put in place: No new connection to the host succeeded within 60 s of the change. It "
        "returned "
        "to its old configuration by itself and answers again."
    )
    assert text.endswith("What the host did:\nifup failed")


def test_failure_says_that_the_host_did_not_come_back() -> None:
    text = Plugin([None]).explain({"failed": True, "msg": "It is broken."}, "t1", {}, 0.1)["msg"]
    assert text.startswith(
        "It is broken. The host does not answer with its old configuration either. Look at its console"
    )
