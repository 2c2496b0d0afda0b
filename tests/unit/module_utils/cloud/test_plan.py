# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Comparisons of existing with wanted resources."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.kilonova.cloud import plan

TINY = {
    "name": "m1.tiny", "id": "1", "vcpus": 1, "ram": 512, "disk": 1, "swap": 0, "ephemeral": 0, "public": True,
    "extra_specs": None,
}  # fmt: skip
NOVA_TINY = {
    "name": "m1.tiny", "id": "1", "vcpus": 1, "ram": 512, "disk": 1, "swap": "", "OS-FLV-EXT-DATA:ephemeral": 0,
    "os-flavor-access:is_public": True, "extra_specs": {"a": "1"},
}  # fmt: skip


def subnet(**changes: Any) -> dict[str, Any]:
    return {
        "name": "nova-v4", "cidr": "192.168.1.0/24", "gateway": "", "dhcp": True, "dns_servers": [], "size": 0,
        "exclude": [],
    } | changes  # fmt: skip


def pools(*pairs: tuple[int, int]) -> list[dict[str, str]]:
    return [{"start": f"192.168.1.{first}", "end": f"192.168.1.{last}"} for first, last in pairs]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, pools((2, 254))),
        ({"size": 254}, pools((2, 254))),
        ({"size": 100}, pools((2, 100))),
        ({"size": 4000}, pools((2, 254))),
        ({"gateway": "192.168.1.254"}, pools((1, 253))),
        ({"gateway": "none"}, pools((1, 254))),
        ({"exclude": ["192.168.1.9/24", "10.0.0.2/24", "fe80::1/64"]}, pools((2, 8), (10, 254))),
        ({"exclude": ["192.168.1.2", "192.168.1.3", "192.168.1.254"]}, pools((4, 253))),
    ],
)
def test_allocation_pools(changes: dict[str, Any], expected: list[dict[str, str]]) -> None:
    assert plan.allocation_pools(subnet(**changes)) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cidr": "192.168.1.5/24"}, "is not an IPv4 network"),
        ({"cidr": "192.168.1.0/31"}, "no room for a gateway and a guest"),
        ({"gateway": "192.168.2.1"}, "outside of 192.168.1.0/24"),
        ({"size": 1}, "leave none for guests"),
        ({"cidr": "192.168.1.0/30", "exclude": ["192.168.1.2"]}, "leave no address"),
        ({"exclude": ["br0"]}, "The excluded 'br0' is not an address"),
    ],
)
def test_impossible_subnets(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(plan.PlanError, match=message):
        plan.allocation_pools(subnet(**changes))


def test_subnet_as_neutron_answers_it() -> None:
    wanted = subnet(exclude=["192.168.1.9"])
    answer = plan.subnet_fields(wanted) | {"id": "x", "allocation_pools": pools((10, 254), (2, 8))}
    assert not plan.subnet_difference(answer, wanted)
    changed = plan.subnet_difference(answer, subnet(exclude=["192.168.1.9"], dns_servers=["9.9.9.9"]))
    assert changed.before == {"dns_nameservers": []}
    assert changed.after == {"dns_nameservers": ["9.9.9.9"]}
    assert plan.subnet_difference(answer, subnet(gateway="none")).after["gateway_ip"] is None


def test_flavor_is_found_by_name_and_id() -> None:
    assert plan.find_flavor([], TINY) is None
    assert plan.find_flavor([NOVA_TINY], TINY) is NOVA_TINY
    assert plan.find_flavor([NOVA_TINY], TINY | {"id": None}) is NOVA_TINY
    with pytest.raises(plan.PlanError, match="has the id '1', wanted is '7'"):
        plan.find_flavor([NOVA_TINY], TINY | {"id": "7"})
    with pytest.raises(plan.PlanError, match="belongs to the flavor 'm1.tiny'"):
        plan.find_flavor([NOVA_TINY], TINY | {"name": "small"})


def test_flavor_sizes_cannot_be_changed_but_extra_specs_can() -> None:
    assert not plan.flavor_difference(NOVA_TINY, TINY)
    assert plan.flavor_difference(NOVA_TINY, TINY | {"extra_specs": {}}).after == {"extra_specs": {}}
    with pytest.raises(plan.PlanError, match="ram is 512, wanted 128.*openstack flavor delete 1"):
        plan.flavor_difference(NOVA_TINY, TINY | {"ram": 128})


@pytest.fixture
def image(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A wanted image, and the same in Glance."""
    path = tmp_path / "guest.qcow2"
    path.write_bytes(b"disk")
    wanted = {
        "name": "guest", "path": str(path), "disk_format": "qcow2", "container_format": "bare", "visibility": "public",
        "min_disk": 0, "min_ram": 0, "properties": {"hw_rng_model": "virtio", "hw_number": 1},
    }  # fmt: skip
    stored = {name: value for name, value in wanted.items() if name not in ("path", "properties")} | {
        "hw_rng_model": "virtio", "hw_number": "1",
        "os_hash_algo": "sha512", "os_hash_value": hashlib.sha512(b"disk").hexdigest(),
    }  # fmt: skip
    return wanted, stored


def test_image_without_difference(image: tuple[dict[str, Any], dict[str, Any]]) -> None:
    wanted, stored = image
    assert plan.image_content_differs(stored, wanted) == ""
    assert not plan.image_difference(stored, wanted)


def test_image_with_different_content(image: tuple[dict[str, Any], dict[str, Any]]) -> None:
    wanted, stored = image
    Path(wanted["path"]).write_bytes(b"another disk")
    assert "a different sha512" in plan.image_content_differs(stored, wanted)
    assert "disk_format is qcow2, wanted raw" in plan.image_content_differs(stored, wanted | {"disk_format": "raw"})
    assert "no hash" in plan.image_content_differs(stored | {"os_hash_value": None}, wanted)


def test_image_patch(image: tuple[dict[str, Any], dict[str, Any]]) -> None:
    wanted, stored = image
    changes = plan.image_difference(stored, wanted | {"visibility": "private", "properties": {"a/b": True}})
    assert plan.image_patch(stored, changes) == [
        {"op": "replace", "path": "/visibility", "value": "private"},
        {"op": "add", "path": "/a~1b", "value": "True"},
    ]


def rule(**changes: Any) -> dict[str, Any]:
    return {
        "group": "default", "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp", "port_min": 22,
        "port_max": None, "remote": None,
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    ("existing", "wanted", "there"),
    [
        (rule(), rule(), True),
        (rule(remote="0.0.0.0/0"), rule(), True),
        (rule(), rule(port_max=22), True),
        (rule(), rule(port_max=23), False),
        (rule(), rule(remote="10.0.0.0/8"), False),
        (rule(protocol="any", port_min=None), rule(protocol="any", port_min=None), True),
    ],
)
def test_rule_exists(existing: dict[str, Any], wanted: dict[str, Any], there: bool) -> None:
    assert plan.rule_exists([plan.rule_fields(existing)], wanted) is there


def test_rule_for_a_group_does_not_count() -> None:
    assert not plan.rule_exists([plan.rule_fields(rule()) | {"remote_group_id": "x"}], rule())


def test_rule_text() -> None:
    assert plan.rule_text(rule()) == "ingress tcp 22 from anywhere (IPv4)"
    assert plan.rule_text(rule(direction="egress", port_max=25, remote="10.0.0.0/8")) == (
        "egress tcp 22-25 to 10.0.0.0/8 (IPv4)"
    )


def test_keys() -> None:
    assert plan.same_key("ssh-ed25519 AAAAx me@here", "ssh-ed25519 AAAAx\n")
    assert not plan.same_key("ssh-ed25519 AAAAx", "ssh-ed25519 AAAAy")
    assert plan.public_key_problem("ssh-ed25519 AAAAx me") == ""
    assert plan.public_key_problem("-----BEGIN OPENSSH PRIVATE KEY-----") != ""


@pytest.mark.parametrize(
    ("server", "action"),
    [
        (None, "create"),
        ({"status": "BUILD"}, "wait"),
        ({"status": "ACTIVE"}, "keep"),
        ({"status": "SHUTOFF"}, "keep"),
        ({"status": "ERROR", "OS-SRV-USG:launched_at": None}, "recreate"),
        ({"status": "ERROR", "OS-SRV-USG:launched_at": "2026-01-01T00:00:00"}, "report"),
    ],
)
def test_server_action(server: dict[str, Any] | None, action: str) -> None:
    assert plan.server_action(server) == action


def test_ambiguous_name() -> None:
    with pytest.raises(plan.PlanError, match=r"2 of the server 'my_vm' in the project \(a, b\)"):
        plan.the_one("server", "my_vm", [{"id": "b"}, {"id": "a"}])
