# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The meaning of a guest's console, ssh and answers, and a real connection to the action plugin's listener."""

from __future__ import annotations

import subprocess

import pytest
from ansible.module_utils.kilonova.cloud import guest_checks
from ansible.module_utils.kilonova.cloud.guest_checks import Outside, ProbeError

from plugins.action.guest_probe import Listener

CONSOLE = """\
kilonova-guest: host key ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICVxRW6sBxs8
kilonova-guest: host key ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY=
kilonova-guest: host key ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICVxRW6sBxs8
kilonova-guest: ready after 5.1 s, address 192.168.1.149
"""


def test_host_keys_are_read_from_the_console() -> None:
    assert guest_checks.host_keys(CONSOLE, "192.168.1.149") == [
        "192.168.1.149 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICVxRW6sBxs8",
        "192.168.1.149 ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY=",
    ]
    assert guest_checks.host_keys("login:", "192.168.1.149") == []


@pytest.mark.parametrize(
    ("address", "there"),
    [("192.168.1.149", True), ("192.168.1.14", False), ("92.168.1.149", False), ("192.168.1.1", False)],
)
def test_address_on_the_console(address: str, there: bool) -> None:
    assert guest_checks.address_on(CONSOLE, address) is there


def test_address_at_the_end_of_a_sentence() -> None:
    assert guest_checks.address_on("lease of 10.0.0.2.", "10.0.0.2")
    assert not guest_checks.address_on("10.0.0.2.5", "10.0.0.2")


@pytest.mark.parametrize(
    ("answer", "interface"),
    [('[{"dst":"192.168.1.9","dev":"br0"}]', "br0"), ("[]", ""), ("RTNETLINK answers: unreachable", "")],
)
def test_route_interface(answer: str, interface: str) -> None:
    assert guest_checks.route_interface(answer) == interface


def run_as_guest(outside: Outside | None) -> dict[str, str]:
    done = subprocess.run(
        ["bash", "-c", guest_checks.guest_script(outside)], capture_output=True, text=True, timeout=60, check=False
    )
    return guest_checks.answers(done.stdout)


def test_guest_tells_its_name() -> None:
    assert run_as_guest(None) == {"hostname": subprocess.check_output(["hostname"], text=True).strip()}


def test_guest_reaches_the_listener_and_is_seen_there() -> None:
    with Listener("127.0.0.1") as listener:
        outside = Outside(listener.address, listener.port, listener.token, ["127.0.0.1"])
        assert guest_checks.check_outside(outside, run_as_guest(outside)["outside"]) == "127.0.0.1"
    assert listener.peers == ["127.0.0.1"]


def test_guest_is_seen_with_its_own_address() -> None:
    outside = Outside("10.0.0.1", 7, "token", ["10.0.0.2"])
    with pytest.raises(ProbeError, match="seen there as 192.168.1.9 and not as 10.0.0.2") as failure:
        guest_checks.check_outside(outside, "peer 192.168.1.9")
    assert failure.value.layer == "SNAT"


def test_listener_answers_no_stranger_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_checks, "OUTSIDE_TRIES", 1)
    with Listener("127.0.0.1") as listener:
        stranger = Outside(listener.address, listener.port, "a-wrong-token", [])
        with pytest.raises(ProbeError, match="does not reach the listener"):
            guest_checks.check_outside(stranger, run_as_guest(stranger).get("outside", ""))
    assert listener.peers == []
    with pytest.raises(ProbeError, match="does not reach"):
        guest_checks.check_outside(stranger, run_as_guest(stranger).get("outside", ""))


def test_service_outside_without_listener() -> None:
    with Listener("127.0.0.1") as listener:
        outside = Outside(listener.address, listener.port, "", [])
        assert guest_checks.check_outside(outside, run_as_guest(outside)["outside"]) == ""


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
    assert guest_checks.login_problem(message)[0] == layer
