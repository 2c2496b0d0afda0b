# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Users of computes in Keystone."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from plugins.filter import keystone, rabbitmq

SEED = "x" * 32


def test_each_compute_has_a_user_and_a_password_of_its_own() -> None:
    one, same, other = (keystone.compute_identity(host, SEED) for host in ("cmp1.site", "cmp1.site", "cmp2"))
    assert one == same
    assert (one["name"], other["name"]) == ("nova-compute-cmp1.site", "nova-compute-cmp2")
    passwords = {one["password"], other["password"], keystone.compute_identity("cmp1.site", SEED + "y")["password"]}
    # What opens Keystone opens no queue.
    assert len(passwords | {rabbitmq.compute_messaging("cmp1.site", SEED, "openstack")["password"]}) == 4


def test_a_seed_is_needed() -> None:
    with pytest.raises(AnsibleFilterError, match="compute_identity: the secret"):
        keystone.compute_identity("cmp1", "")
