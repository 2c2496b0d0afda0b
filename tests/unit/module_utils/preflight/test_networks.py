# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Messages about networks."""

from __future__ import annotations

import pytest
from ansible.module_utils.kilonova.preflight import networks

from tests.unit.module_utils.preflight.sample import host, interface


@pytest.mark.parametrize(("value", "size"), [("192.168.1.0/24", 254), ("10.1.0.0/16", 1000), ("192.168.1.0/29", "6")])
def test_valid_fixed_range(value: str, size: object) -> None:
    assert networks.check_fixed_range(value, size) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            "192.168.1.0",
            "fixed_range = '192.168.1.0': this is not an IPv4 network in CIDR form (the prefix length is missing). "
            "Write a network such as 192.168.1.0/24.",
        ),
        (
            "192.168.1.7/24",
            "fixed_range = '192.168.1.7/24': the address has host bits set, 192.168.1.0/24 is the network that it is "
            "in. Write 192.168.1.0/24.",
        ),
        (
            "127.0.0.0/8",
            "fixed_range = '127.0.0.0/8': guests cannot use addresses of that kind. Write a private network such as "
            "192.168.1.0/24.",
        ),
        (
            "192.168.1.0/31",
            "fixed_range = '192.168.1.0/31': it has 0 usable addresses, and a gateway, DHCP and a guest need 3. Write "
            "a larger network such as 192.168.1.0/24.",
        ),
    ],
)
def test_invalid_fixed_range(value: str, expected: str) -> None:
    assert networks.check_fixed_range(value, 254) == [expected]


def test_fixed_range_that_is_no_network() -> None:
    (text,) = networks.check_fixed_range("flat", 254)
    assert text.startswith("fixed_range = 'flat': this is not an IPv4 network in CIDR form (")
    assert text.endswith(". Write a network such as 192.168.1.0/24.")


def test_network_size_does_not_fit() -> None:
    assert networks.check_fixed_range("192.168.1.0/24", 300) == [
        "network_size = 300: fixed_range = 192.168.1.0/24 has only 254 usable addresses. Write 254 or less, or a "
        "larger fixed_range such as 192.168.0.0/23."
    ]
    assert networks.check_fixed_range("192.168.1.0/24", 1) == [
        "network_size = 1: a gateway, DHCP and a guest need 3 addresses. Write a number from 3 to 254."
    ]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("router", "this is not an IPv4 address"),
        ("192.168.2.1", "this address is outside fixed_range = 192.168.1.0/24"),
        ("192.168.1.0", "this is the network address of fixed_range = 192.168.1.0/24"),
        ("192.168.1.255", "this is the broadcast address of fixed_range = 192.168.1.0/24"),
    ],
)
def test_wrong_fixed_gateway(value: str, why: str) -> None:
    assert networks.check_fixed_gateway(value, "192.168.1.0/24") == [
        f"fixed_gateway = '{value}': {why}. Write the address of the router in 192.168.1.0/24, such as 192.168.1.1, or "
        "'' if the site has none there."
    ]


def test_right_fixed_gateway() -> None:
    assert networks.check_fixed_gateway("", "192.168.1.0/24") == []
    assert networks.check_fixed_gateway("192.168.1.254", "192.168.1.0/24") == []


def test_fixed_range_overlaps_the_management_network() -> None:
    assert networks.check_host_networks(host(), "10.0.0.0/16", "br0", "10.0.0.2") == [
        "fixed_range = '10.0.0.0/16': it overlaps the management network 10.0.0.0/24 that this host is in (10.0.0.2/24 "
        "on eth0). Write a network that nothing else uses, such as 10.1.0.0/16."
    ]


def test_fixed_range_overlaps_another_network() -> None:
    assert networks.check_host_networks(host(), "172.16.0.128/25", "br0", "10.0.0.2") == [
        "fixed_range = '172.16.0.128/25': it overlaps a network 172.16.0.0/24 that this host is in (172.16.0.2/24 on "
        "eth1). Write a network that nothing else uses, such as 192.168.0.128/25."
    ]


def test_own_gateway_address_of_an_earlier_run_is_no_overlap() -> None:
    deployed = host(interfaces={"br0": interface("10.0.0.2/24", "192.168.1.1/24", kind="bridge")})
    assert networks.check_host_networks(deployed, "192.168.1.0/24", "br0", "10.0.0.2") == []
    assert len(networks.check_host_networks(deployed, "192.168.1.0/24", "br9", "10.0.0.2")) == 1


def test_ranges_overlap_each_other() -> None:
    assert networks.check_ranges({"fixed_range": "192.168.1.0/24", "nova_other_range": "192.168.2.0/24"}) == []
    assert networks.check_ranges(
        {"fixed_range": "192.168.1.0/24", "nova_other_range": "192.168.0.0/16", "x": "no"}
    ) == [
        "fixed_range = '192.168.1.0/24': it overlaps nova_other_range = 192.168.0.0/16. Write a network such as "
        "10.0.1.0/24 in one of the two."
    ]
