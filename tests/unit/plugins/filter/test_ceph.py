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
