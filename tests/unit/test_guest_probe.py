# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The module guest_probe and its action plugin: what is read from a console, and a real way out through a shell."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import guest_probe
import pytest
from guest_probe import Outside, Probe, ProbeError

from plugins.action.guest_probe import Listener

CONSOLE = """\
kilonova-guest: host key ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICVxRW6sBxs8
kilonova-guest: host key ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY=
kilonova-guest: host key ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICVxRW6sBxs8
kilonova-guest: ready after 5.1 s, address 192.168.1.149
"""


def test_host_keys_are_read_from_the_console() -> None:
    assert guest_probe.host_keys(CONSOLE, "192.168.1.149") == [
        "192.168.1.149 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICVxRW6sBxs8",
        "192.168.1.149 ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY=",
    ]
    assert guest_probe.host_keys("login:", "192.168.1.149") == []


@pytest.mark.parametrize(
    ("address", "there"),
    [("192.168.1.149", True), ("192.168.1.14", False), ("92.168.1.149", False), ("192.168.1.1", False)],
)
def test_address_on_the_console(address: str, there: bool) -> None:
    assert guest_probe.address_on(CONSOLE, address) is there


def test_address_at_the_end_of_a_sentence() -> None:
    assert guest_probe.address_on("lease of 10.0.0.2.", "10.0.0.2")
    assert not guest_probe.address_on("10.0.0.2.5", "10.0.0.2")


@pytest.mark.parametrize(
    ("answer", "interface"),
    [('[{"dst":"192.168.1.9","dev":"br0"}]', "br0"), ("[]", ""), ("RTNETLINK answers: unreachable", "")],
)
def test_route_interface(answer: str, interface: str) -> None:
    assert guest_probe.route_interface(answer) == interface


def run_as_guest(outside: Outside | None) -> dict[str, str]:
    done = subprocess.run(
        ["bash", "-c", guest_probe.guest_script(outside)], capture_output=True, text=True, timeout=60, check=False
    )
    return guest_probe.answers(done.stdout)


def test_guest_tells_its_name() -> None:
    assert run_as_guest(None) == {"hostname": subprocess.check_output(["hostname"], text=True).strip()}


def test_guest_reaches_the_listener_and_is_seen_there() -> None:
    with Listener("127.0.0.1") as listener:
        outside = Outside(listener.address, listener.port, listener.token, ["127.0.0.1"])
        assert guest_probe.check_outside(outside, run_as_guest(outside)["outside"]) == "127.0.0.1"
    assert listener.peers == ["127.0.0.1"]


def test_guest_is_seen_with_its_own_address() -> None:
    outside = Outside("10.0.0.1", 7, "token", ["10.0.0.2"])
    with pytest.raises(ProbeError, match="seen there as 192.168.1.9 and not as 10.0.0.2") as failure:
        guest_probe.check_outside(outside, "peer 192.168.1.9")
    assert failure.value.layer == "SNAT"


def test_listener_is_gone_and_tells_strangers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_probe, "OUTSIDE_TRIES", 1)
    with Listener("127.0.0.1") as listener:
        stranger = Outside(listener.address, listener.port, "a-wrong-token", [])
        with pytest.raises(ProbeError, match="does not reach the listener"):
            guest_probe.check_outside(stranger, run_as_guest(stranger).get("outside", ""))
    assert listener.peers == []
    with pytest.raises(ProbeError, match="does not reach"):
        guest_probe.check_outside(stranger, run_as_guest(stranger).get("outside", ""))


def test_service_outside_without_listener() -> None:
    with Listener("127.0.0.1") as listener:
        outside = Outside(listener.address, listener.port, "", [])
        assert guest_probe.check_outside(outside, run_as_guest(outside)["outside"]) == ""


@pytest.mark.parametrize(
    ("message", "layer"),
    [
        ("debian@192.168.1.9: Permission denied (publickey).", "guest metadata"),
        ("Host key verification failed.", "guest"),
        ("ssh: connect to host 192.168.1.9 port 22: Connection refused", "guest"),
        ("ssh: connect to host 192.168.1.9 port 22: Connection timed out", "OVN"),
    ],
)
def test_login_problem(message: str, layer: str) -> None:
    assert guest_probe.login_problem(message)[0] == layer


def make_probe(run: Callable[[list[str]], tuple[int, str, str]], console: str, **params: Any) -> Probe:
    arguments = {
        "server": "s", "address": "192.168.1.149", "interface": "br0", "user": "debian", "private_key": "/dev/null",
        "hostname": "my-vm", "timeout": 0, "outside_address": "", "consoles": None,
    }  # fmt: skip
    module = SimpleNamespace(params=arguments | params, run_command=run)
    api = SimpleNamespace(post=lambda service, path, body: {"output": console})
    return Probe(module, api)  # type: ignore[arg-type]


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
        "outside_peer": "",
        "consoles": {},
    }
    assert make_probe(healthy, "").run()["host_key"] == "first seen"


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
