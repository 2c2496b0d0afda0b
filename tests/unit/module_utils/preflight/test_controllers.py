# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What several controllers need."""

from __future__ import annotations

import pytest
from ansible.module_utils.kilonova.preflight import controllers

FACTS = {"interfaces": {"eth0": {"addresses": ["192.0.2.11/24", "fe80::1/64"]}, "eth1": {"addresses": []}}}
HOSTS = ["192.0.2.11", "192.0.2.12", "192.0.2.13"]


@pytest.mark.parametrize("count", [1, 3, 5, 7])
def test_odd_numbers_of_controllers(count: int) -> None:
    assert controllers.check_number(["c"] * count) == []


@pytest.mark.parametrize(("count", "why"), [(2, "survives no more failures"), (6, "survives no more"), (9, "slow")])
def test_other_numbers_of_controllers(count: int, why: str) -> None:
    (found,) = controllers.check_number(["c"] * count)
    assert found.startswith(f"The group controller has {count} hosts (c, c") and why in found
    assert found.endswith("Write 1, or an odd number of hosts up to 7, into it.")


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("192.0.2.12", "this is the address of one controller"),
        ("198.51.100.1", "it is outside of 192.0.2.0/24, where this controller has 192.0.2.11"),
        ("", "the controllers need an IPv4 address"),
        ("api.example.net", "the controllers need an IPv4 address"),
    ],
)
def test_an_address_that_cannot_move(address: str, why: str) -> None:
    (found,) = controllers.check_address(FACTS, address, HOSTS[0], HOSTS)
    assert found.startswith(f"cloud_api_address = '{address}': {why}")
    assert "Write a free address in 192.0.2.0/24" in found


def test_an_address_that_can_move() -> None:
    assert controllers.check_address(FACTS, "192.0.2.10", HOSTS[0], HOSTS) == []


def test_images_are_where_all_controllers_read_them() -> None:
    (found,) = controllers.check_images("/var/lib/glance/images", shared=False, ceph=False)
    assert found.startswith("glance_store_shared = False: each controller would have its own images")
    assert controllers.check_images("/x", shared=True, ceph=False) == []
    assert controllers.check_images("/x", shared=False, ceph=True) == []


def test_several_serve_at_one_address() -> None:
    assert controllers.check_former([]) == []
    (found,) = controllers.check_former(["192.0.2.9"])
    assert "haproxy_former_addresses" in found and "192.0.2.9" in found


def test_an_address_that_one_would_keep() -> None:
    facts = {"interfaces": {"eth0": {"addresses": ["192.0.2.11/24", "192.0.2.10/24"]}}}
    (found,) = controllers.check_address(facts, "192.0.2.10", HOSTS[0], HOSTS)
    assert "192.0.2.10/24 on eth0" in found and "ip address add 192.0.2.10/32" in found
    # As keepalived gives it to one of them.
    facts["interfaces"]["eth0"]["addresses"][1] = "192.0.2.10/32"
    assert controllers.check_address(facts, "192.0.2.10", HOSTS[0], HOSTS) == []
