# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Messages about numbers and addresses."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.kilonova.preflight import ranges, roles

from tests.unit.module_utils.preflight.sample import KNOWN, host

PROJECT = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize(
    ("name", "value", "limits"),
    [
        ("nova_api_workers", 0, "at least 1"),
        ("nova_api_workers", "-3", "at least 1"),
        ("neutron_physical_mtu", 20, "from 1280 to 9216"),
        ("neutron_physical_mtu", 0, "from 1280 to 9216"),
        ("verify_outside_port", 65536, "from 1 to 65535"),
        ("verify_timeout", 0, "at least 1"),
        ("lab_stop_timeout", 0.5, "at least 1"),
        ("haproxy_max_connections", 0, "at least 1"),
        ("memcached_memory_mib", 0, "at least 1"),
        ("nova_compute_reserved_memory_mib", -1, "at least 0"),
        ("base_apt_cache_valid_time", -1, "at least 0"),
        ("secrets_length", 8, "from 32 to 255"),
    ],
)
def test_number_out_of_range(name: str, value: object, limits: str) -> None:
    instead = (
        f"Write a number {limits}" if limits.startswith("from") else f"Write {limits.removeprefix('at least ')} or more"
    )
    assert ranges.check_numbers({name: value}, KNOWN) == [f"{name} = {value!r}: this must be {limits}. {instead}."]


@pytest.mark.parametrize("value", [20, 1279, 9217, -1])
def test_mtu_out_of_range(value: int) -> None:
    assert ranges.check_numbers({"bridge_mtu": value}, KNOWN) == [
        f"bridge_mtu = {value}: this must be from 1280 to 9216. Write a number from 1280 to 9216, or 0 to have the "
        "default."
    ]


def test_numbers_in_range() -> None:
    right = {
        "nova_api_workers": 1,
        "bridge_mtu": 0,
        "neutron_physical_mtu": "9000",
        "verify_outside_port": 443,
        "nova_compute_reserved_memory_mib": 0,
        "base_apt_cache_valid_time": 0,
        "network_size": "many",
    }
    assert ranges.check_numbers(right, KNOWN) == []


def test_more_memory_than_the_host_has() -> None:
    wanted = {"memcached_memory_mib": 8000, "nova_compute_reserved_memory_mib": "9000"}
    assert ranges.check_memory_sizes(wanted, host(), ["controller"]) == [
        "memcached_memory_mib = 8000: this host has 8000 MiB of memory. Write a number below 8000."
    ]
    assert len(ranges.check_memory_sizes(wanted, host(), ["controller", "compute"])) == 2
    assert ranges.check_memory_sizes(wanted, host(memory_mib=9001), ["controller", "compute"]) == []


def test_name_server_without_an_address() -> None:
    assert ranges.check_addresses(
        {"first_cloud_dns_servers": ["192.0.2.53", "dns.example", "2001:db8::53"]}, KNOWN
    ) == [
        "first_cloud_dns_servers = 'dns.example': a name server is given by its IP address. Write an address such as "
        "192.0.2.53."
    ]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("rabbitmq_address", "queue.example", "this is not an IPv4 address"),
        ("rabbitmq_address", "fd00::1", "this is not an IPv4 address"),
        ("bridge_gateway", "10.0.0.256", "this is not an IPv4 address"),
        ("bridge_address", "10.0.0.2", "this is not an IPv4 address with prefix length"),
        ("bridge_address", "host/24", "this is not an IPv4 address with prefix length"),
    ],
)
def test_wrong_address(name: str, value: str, why: str) -> None:
    (found,) = ranges.check_addresses({name: value}, KNOWN)
    assert found.startswith(f"{name} = '{value}': {why}. Write an address such as ")


def test_right_addresses() -> None:
    right = {"rabbitmq_address": "10.0.0.2", "bridge_address": "10.0.0.2/24", "bridge_gateway": "", "bridge_dns": []}
    assert ranges.check_addresses(right, KNOWN) == []


def test_defaults_of_the_roles_are_within_their_limits() -> None:
    known = roles.read_roles(PROJECT / "roles")
    defaults = {
        name: option["default"]
        for name, option in known.options.items()
        if "default" in option and "{{" not in str(option["default"])
    }
    assert len(defaults) > 50
    assert ranges.check_numbers(defaults, known) == []
    assert ranges.check_addresses(defaults, known) == []


def test_tables_name_variables_that_exist() -> None:
    known = roles.read_roles(PROJECT / "roles")
    assert {*ranges.LIMITS, *ranges.MEMORY, *ranges.CHECKED_ELSEWHERE} - set(known.options) == set()
