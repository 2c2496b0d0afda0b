# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The module guest_probe: what it returns, and which failure it reports with which evidence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import guest_probe
import pytest
from ansible.module_utils.kilonova.cloud import guest_probe as logic
from ansible.module_utils.kilonova.cloud.guest_checks import ProbeError
from ansible.module_utils.kilonova.cloud.health import Unhealthy
from ansible.module_utils.kilonova.consoles.probe import ConsoleError

SERVER = {"id": "s", "name": "my_vm", "ports": ["p"]}
BROKEN = {"layer": "OVN", "message": "OVN Controller agent on node2 is not alive", "hosts": ["node2"]}


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch, run_module: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Run the module in a cloud and on a guest that answer, or raise what is given."""

    def run(cloud: Exception | None = None, guest: Exception | None = None) -> dict[str, Any]:
        def healthy(*_: Any) -> tuple[dict[str, Any], bool]:
            if cloud:
                raise cloud
            return {"servers": [SERVER]}, True

        def check(self: logic.Probe) -> dict[str, Any]:
            if guest:
                raise guest
            return {"hostname": "my-vm"}

        monkeypatch.setattr(logic, "connect", lambda module: None)
        monkeypatch.setattr(logic, "healthy", healthy)
        monkeypatch.setattr(logic.Probe, "run", check)
        monkeypatch.setattr(logic.Probe, "console", lambda self: "login:")
        monkeypatch.setattr(logic, "layer_logs", lambda layers: f"logs of {', '.join(layers)}")
        return run_module(guest_probe, server="my_vm", interface="br0", user="debian", private_key="/dev/null")

    return run


def test_success(probe: Callable[..., dict[str, Any]]) -> None:
    result = probe()
    assert (result["changed"], result["hostname"], result["server"]) == (False, "my-vm", SERVER)


def test_problems_of_the_cloud_come_first(probe: Callable[..., dict[str, Any]]) -> None:
    result = probe(cloud=Unhealthy([BROKEN]), guest=ProbeError("guest", "it did not boot"))
    assert result["failed"] and "- OVN: OVN Controller agent on node2 is not alive." in result["msg"]
    assert (result["layer"], result["problems"]) == ("OVN", [BROKEN])


def test_failure_of_the_guest_comes_with_logs_and_console(probe: Callable[..., dict[str, Any]]) -> None:
    result = probe(guest=ProbeError("guest DHCP", "no lease"))
    assert result["msg"] == "guest DHCP: no lease\nlogs of guest DHCP\n--- the guest's console:\nlogin:"
    assert (result["layer"], result["server"]) == ("guest DHCP", SERVER)


def test_failure_of_a_console_comes_with_logs(probe: Callable[..., dict[str, Any]]) -> None:
    error = ConsoleError("it does not open")
    error.layer = "noVNC console"
    assert probe(guest=error)["msg"] == "noVNC console: it does not open\nlogs of noVNC console"
