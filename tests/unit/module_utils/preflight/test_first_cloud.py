# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Messages about the first server and security group rules."""

from __future__ import annotations

import pytest
from ansible.module_utils.kilonova.preflight import first_cloud

FLAVORS = [{"name": "m1.tiny"}, {"name": "m1.small"}]
IMAGES = [{"name": "kilonova-guest"}]


def test_server_of_the_inventory() -> None:
    assert first_cloud.check_server("my_vm", "m1.small", "kilonova-guest", FLAVORS, IMAGES) == []
    assert first_cloud.check_server("", "none", "none", FLAVORS, IMAGES) == []


def test_server_without_flavor_or_image() -> None:
    assert first_cloud.check_server("my_vm", "m1.tyni", "debian", FLAVORS, IMAGES) == [
        "first_cloud_server_flavor = 'm1.tyni': first_cloud_flavors has none of this name. Write one of: m1.tiny, "
        "m1.small; or add it to first_cloud_flavors.",
        "first_cloud_server_image = 'debian': first_cloud_images has none of this name. Write one of: kilonova-guest; "
        "or add it to first_cloud_images.",
    ]
    assert first_cloud.check_server("my_vm", "m1.tiny", "debian", "text", [1]) == []


@pytest.mark.parametrize(
    "rule",
    [
        {"protocol": "icmp"},
        {"protocol": "TCP", "port_min": 22},
        {"protocol": "udp", "port_min": 1, "port_max": 65535},
        {"protocol": 47},
        {"protocol": "icmp", "port_min": 8, "port_max": 0},
        {"protocol": "any", "port_min": None},
    ],
)
def test_right_rules(rule: dict[str, object]) -> None:
    assert first_cloud.check_rules([rule]) == []


@pytest.mark.parametrize(
    ("rule", "why", "instead"),
    [
        ({"protocol": "tpc"}, "there is no protocol 'tpc'", "Write protocol: tcp"),
        ({"protocol": 256}, "there is no protocol '256'", "Write protocol: "),
        ({}, "there is no protocol ''", "Write protocol: "),
        ({"protocol": "tcp", "port_min": 0}, "port_min is not a port", "Write a number from 1 to 65535"),
        ({"protocol": "tcp", "port_min": 22, "port_max": 70000}, "port_max is not a port", "Write a number from 1"),
        ({"protocol": "udp", "port_min": "dns"}, "port_min is not a port", "Write a number from 1 to 65535"),
        ({"protocol": "tcp", "port_min": 9, "port_max": 1}, "port_min is greater than port_max", "Write the smaller"),
        ({"protocol": "tcp", "port_max": 22}, "port_max is given without port_min", "Write both"),
        ({"protocol": "gre", "port_min": 22}, "gre has no ports", "Remove port_min"),
        ({"protocol": "icmp", "port_min": 256}, "port_min is not an ICMP type or code", "Write a number from 0 to 255"),
    ],
)
def test_wrong_rules(rule: dict[str, object], why: str, instead: str) -> None:
    (found,) = first_cloud.check_rules([{"protocol": "icmp"}, rule])
    assert found.startswith(f"first_cloud_security_group_rules = {rule!r}: {why}. {instead}")
