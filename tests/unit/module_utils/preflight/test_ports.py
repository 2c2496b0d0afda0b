# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Messages about ports."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.kilonova.preflight import ports

from tests.unit.module_utils.preflight.sample import host

PORTS = [
    {"port": 5000, "groups": ["controller"], "purpose": "Keystone", "units": ["haproxy.service", "keystone.service"]}
]


def listener(**changes: Any) -> dict[str, Any]:
    """A listening socket as the module preflight_facts reports it."""
    found = {
        "protocol": "tcp",
        "address": "0.0.0.0",
        "port": 5000,
        "pid": 77,
        "process": "nginx",
        "unit": "nginx.service",
    }
    return {**found, **changes}


def test_port_taken() -> None:
    assert ports.check_ports(host(listeners=[listener()]), PORTS, ["controller"]) == [
        "TCP port 5000 on 0.0.0.0 is taken by nginx (PID 77, unit nginx.service): Keystone needs it. Stop and disable "
        "what listens there, or move it to another port."
    ]


@pytest.mark.parametrize(
    "change",
    [{"unit": "haproxy.service"}, {"unit": "keystone.service"}, {"port": 5001}, {"protocol": "udp"}],
)
def test_port_free_or_ours(change: dict[str, Any]) -> None:
    assert ports.check_ports(host(listeners=[listener(**change)]), PORTS, ["controller"]) == []


def test_port_of_another_group() -> None:
    assert ports.check_ports(host(listeners=[listener()]), PORTS, ["compute"]) == []


def test_a_process_that_listens_twice_is_one_problem() -> None:
    twice = [listener(), listener(address="::")]
    assert len(ports.check_ports(host(listeners=twice), PORTS, ["controller"])) == 1
