# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Identity and keys of a Ceph cluster: the same ones for the same secret, in the form that Ceph reads."""

from __future__ import annotations

import base64
import struct
import uuid
from collections.abc import Callable

import pytest
from ansible.errors import AnsibleFilterError

from plugins.filter import ceph

SEED = "a secret of the cluster, long enough"


def test_a_key_has_the_form_of_a_keyring() -> None:
    found = base64.b64decode(ceph.ceph_key(SEED, "client.glance"))
    assert struct.unpack("<HIIH", found[:12]) == (1, 0, 0, 16)
    assert len(found) == 28


def test_keys_never_change() -> None:
    assert ceph.ceph_key(SEED, "client.glance") == "AQAAAAAAAAAAABAAjwK3g9Njyw5yPT8dJf3MIQ=="
    assert ceph.ceph_fsid(SEED) == "9b92670b-d055-450f-8393-f120d9a83756"


def test_each_entity_and_each_seed_has_keys_of_its_own() -> None:
    keys = ceph.ceph_client_keys(SEED, ["glance", "nova"])
    others = ceph.ceph_client_keys(f"{SEED}!", ["glance", "nova"])
    assert len({*keys.values(), *others.values()}) == 4
    assert keys["nova"] == ceph.ceph_key(SEED, "client.nova")


def test_the_identifier_is_a_uuid() -> None:
    assert uuid.UUID(ceph.ceph_fsid(SEED)).version == 4


@pytest.mark.parametrize("make", [ceph.ceph_fsid, lambda seed: ceph.ceph_key(seed, "mon.")])
def test_an_empty_secret_is_refused(make: Callable[[str], str]) -> None:
    with pytest.raises(AnsibleFilterError, match="is empty"):
        make("")


CLIENTS = {
    "nova": {"group": "nova", "hosts": ["compute"], "writes": ["vms"], "reads": ["images"]},
    "glance": {"group": "glance", "hosts": ["controller"], "writes": ["images"], "reads": []},
}
KEYS = {"nova": "key-1", "glance": "key-2"}


def test_clients_have_the_least_rights() -> None:
    nova, glance = ceph.ceph_entities(CLIENTS, KEYS)
    assert nova == {
        "name": "client.nova",
        "key": "key-1",
        "caps": {
            "mon": "profile rbd",
            "osd": "profile rbd pool=vms, profile rbd-read-only pool=images",
            "mgr": "profile rbd pool=vms",
        },
    }
    assert glance["caps"]["osd"] == "profile rbd pool=images"


def test_keyrings_are_for_the_group_of_the_service() -> None:
    assert ceph.ceph_keyrings(CLIENTS, {"nova": "key-1"})["nova"] == {
        "dest": "/etc/ceph/ceph.client.nova.keyring",
        "content": "[client.nova]\n\tkey = key-1\n",
        "group": "nova",
        "mode": "0640",
    }


def test_a_host_checks_the_keys_that_it_has() -> None:
    assert [one["name"] for one in ceph.ceph_access(CLIENTS, KEYS, ["compute", "lab"])] == ["nova"]
    assert [one["name"] for one in ceph.ceph_access(CLIENTS, KEYS, ["controller", "compute"])] == ["nova", "glance"]
