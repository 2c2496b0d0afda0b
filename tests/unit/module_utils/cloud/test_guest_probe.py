# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The order of the checks of a guest: which failure is reported, and when the guest is checked again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.kilonova.cloud import guest_probe
from ansible.module_utils.kilonova.cloud.guest_checks import ProbeError
from ansible.module_utils.kilonova.cloud.guest_probe import Probe
from ansible.module_utils.kilonova.cloud.health import Unhealthy

CONSOLE = """\
kilonova-guest: host key ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICVxRW6sBxs8
kilonova-guest: host key ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY=
kilonova-guest: host key ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICVxRW6sBxs8
kilonova-guest: ready after 5.1 s, address 192.168.1.149
"""


SERVER = {
    "id": "s", "name": "my_vm", "status": "ACTIVE", "addresses": {"flat": [{"addr": "192.168.1.149"}]},
    "OS-EXT-SRV-ATTR:hostname": "my-vm",
}  # fmt: skip


class Api:
    """Nova with servers and one console for all of them."""

    def __init__(self, console: str, *servers: dict[str, Any]) -> None:
        self.console = console
        self.servers = list(servers)
        self.actions = ["create"]

    def get(self, service: str, path: str) -> dict[str, Any]:
        assert path == "/servers/s/os-instance-actions"
        return {"instanceActions": [{"action": action} for action in self.actions]}

    def listing(self, service: str, path: str, key: str) -> list[dict[str, Any]]:
        return self.servers if path == "/servers/detail" else []

    def post(self, service: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"output": self.console}


def make_probe(run: Callable[[list[str]], tuple[int, str, str]], console: str, **params: Any) -> Probe:
    arguments = {
        "server": "my_vm", "interface": "br0", "user": "debian", "private_key": "/dev/null", "timeout": 0,
        "outside_address": "", "consoles": None, "computes": [], "images": [], "silent_hosts": [], "cloud_timeout": 5,
    }  # fmt: skip
    module = SimpleNamespace(params=arguments | params, run_command=run, tmpdir=None, no_log_values=set())
    return Probe(module, Api(console, SERVER))  # type: ignore[arg-type]


def healthy(command: list[str]) -> tuple[int, str, str]:
    return {
        "ping": (0, "", ""),
        "ip": (0, '[{"dev": "br0"}]', ""),
        "ssh": (0, "kilonova-probe hostname my-vm\n", ""),
    }[command[0]]


def test_healthy_guest() -> None:
    assert make_probe(healthy, CONSOLE).run() == {
        "address": "192.168.1.149",
        "lease_on_console": True,
        "hostname": "my-vm",
        "host_key": "console",
        "unshelved": False,
        "outside_peer": "",
        "consoles": {},
    }
    assert make_probe(healthy, "").run()["host_key"] == "first seen"


def test_a_guest_that_was_shelved() -> None:
    probe = make_probe(healthy, CONSOLE)
    probe.api.actions = ["unshelve", "shelve", "create"]  # type: ignore[attr-defined]
    assert probe.run()["unshelved"]


def test_what_the_health_check_knows_of_the_server_survives_a_second_try() -> None:
    probe = make_probe(healthy, CONSOLE)
    probe.server = {"id": "s", "name": "my_vm", "ports": ["p"], "status": "BUILD"}
    probe.find_server()
    assert (probe.server["ports"], probe.server["status"]) == (["p"], "ACTIVE")


def but(name: str, status: int, output: str = "", error: str = "") -> Callable[[list[str]], tuple[int, str, str]]:
    return lambda command: (status, output, error) if command[0] == name else healthy(command)


@pytest.mark.parametrize(
    ("run", "console", "layer", "message"),
    [
        (but("ping", 1), "", "guest", "did not boot"),
        (but("ping", 1), "booted after 2 s", "guest DHCP", "no lease on its console"),
        (but("ping", 1), CONSOLE, "OVN", "has its lease, but"),
        (but("ip", 0, '[{"dev": "eth1"}]'), CONSOLE, "OVN", "through 'eth1', not through br0"),
        (but("ssh", 255, "", "Permission denied"), CONSOLE, "guest metadata", "does not accept the key"),
        (but("ssh", 127, "", "sh: not found"), CONSOLE, "guest", "runs no command"),
        (but("ssh", 0, "kilonova-probe hostname debian\n"), CONSOLE, "guest metadata", "is called 'debian'"),
    ],
)
def test_each_failure_names_its_layer(
    run: Callable[[list[str]], tuple[int, str, str]], console: str, layer: str, message: str
) -> None:
    with pytest.raises(ProbeError, match=message) as failure:
        make_probe(run, console).run()
    assert failure.value.layer == layer


def test_private_key_is_missing() -> None:
    with pytest.raises(ProbeError, match="/nowhere does not exist"):
        make_probe(healthy, CONSOLE, private_key="/nowhere").run()


@pytest.mark.parametrize(
    ("servers", "layer", "message"),
    [([], "Nova API", "no server 'my_vm'"), ([SERVER | {"addresses": {}}], "Neutron", "has no address")],
)
def test_guest_without_server_or_address(servers: list[dict[str, Any]], layer: str, message: str) -> None:
    probe = make_probe(healthy, CONSOLE)
    probe.api = Api(CONSOLE, *servers)  # type: ignore[assignment]
    with pytest.raises(ProbeError, match=message) as failure:
        probe.run()
    assert failure.value.layer == layer


def test_tokens_are_masked_in_a_new_set() -> None:
    probe = make_probe(healthy, CONSOLE)
    read_before = probe.module.no_log_values
    probe.hide("a-token")
    assert read_before == set()
    assert probe.module.no_log_values == {"a-token"}


class Cloud:
    """Stands for healthy(): answers once the guest was checked."""

    def __init__(self, at_once: bool, broken: bool = False) -> None:
        self.at_once, self.broken = at_once, broken
        self.guest_was_checked = threading.Event()

    def __call__(
        self, api: Any, computes: list[str], images: list[str], servers: list[str], timeout: float, silent: list[str]
    ) -> tuple[dict[str, Any], bool]:
        assert (computes, images, servers, timeout, silent) == (["node1"], ["guest"], ["my_vm"], 5, [])
        assert self.guest_was_checked.wait(5)
        if self.broken:
            raise Unhealthy([{"layer": "OVN", "message": "is not alive", "hosts": ["node2"]}])
        return {"servers": [{"id": "s", "name": "my_vm", "ports": ["p"]}]}, self.at_once


def probe_in(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, fails: int) -> Probe:
    """A probe in that cloud, whose first ``fails`` logins fail."""
    left = [fails]

    def run(command: list[str]) -> tuple[int, str, str]:
        if command[0] != "ssh":
            return healthy(command)
        cloud.guest_was_checked.set()
        left[0] -= 1
        return (255, "", "Connection refused") if left[0] >= 0 else healthy(command)

    monkeypatch.setattr(guest_probe, "healthy", cloud)
    return make_probe(run, CONSOLE, computes=["node1"], images=["guest"])


def test_cloud_and_guest_are_checked_together(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = probe_in(Cloud(at_once=True), monkeypatch, fails=0)
    seen = guest_probe.probe_healthy(probe)
    assert seen["servers"] == [seen["server"]] == [{"id": "s", "name": "my_vm", "ports": ["p"]}]
    assert seen["hostname"] == "my-vm"


def test_problems_of_the_cloud_come_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probe = probe_in(Cloud(at_once=False, broken=True), monkeypatch, fails=1)
    with pytest.raises(Unhealthy, match="OVN: is not alive"):
        guest_probe.probe_healthy(probe)


def test_guest_of_a_healthy_cloud_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = probe_in(Cloud(at_once=True), monkeypatch, fails=1)
    with pytest.raises(ProbeError, match="ssh server does not answer"):
        guest_probe.probe_healthy(probe)
    # With its ports, for the comparison with libvirt.
    assert probe.server["ports"] == ["p"]


def test_guest_that_failed_early_is_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert guest_probe.probe_healthy(probe_in(Cloud(at_once=False), monkeypatch, fails=1))["hostname"] == "my-vm"
    with pytest.raises(ProbeError, match="ssh server does not answer"):
        guest_probe.probe_healthy(probe_in(Cloud(at_once=False), monkeypatch, fails=2))
