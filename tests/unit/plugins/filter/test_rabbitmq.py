# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The definitions file: hashes that RabbitMQ accepts, and what an account may use."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from plugins.filter import rabbitmq as filters

ODD = "@:/%$#'\"\\ ü"


@pytest.mark.parametrize("password", ["secret", ODD, "x" * 200])
def test_rabbitmq_can_check_a_password_against_its_hash(password: str) -> None:
    # As RabbitMQ does: the salt is the first four bytes, the rest is the hash of salt and password.
    stored = base64.b64decode(filters.rabbitmq_password_hash(password), validate=True)
    salt, digest = stored[:4], stored[4:]
    assert hashlib.sha256(salt + password.encode()).digest() == digest
    assert hashlib.sha256(salt + b"other").digest() != digest


def test_rabbitmq_hash_changes_with_the_password_only() -> None:
    one, same, other = (filters.rabbitmq_password_hash(password) for password in ("one", "one", "other"))
    assert one == same
    assert one[:5] != other[:5], "the salts differ too"


COMPUTE: dict[str, Any] = filters.compute_messaging("cmp1.site", "seed", "openstack")
# As nova-compute declares them, with the queue manager of oslo.messaging 16.
OWN = {
    *("compute", "compute.cmp1.site", "reply_cmp1.site:nova-compute:1"),
    *("compute_fanout_cmp1.site:nova-compute:12",),
}
FOREIGN = {
    *("conductor", "conductor.ctl1", "scheduler", "compute.cmp2.site", "compute.cmp1xsite", "compute.cmp1.site2"),
    *("reply_ctl1:nova-conductor:1", "reply_cmp2.site:nova-compute:1", "reply_cmp1.site:nova-conductor:1"),
    *("compute_fanout_cmp2.site:nova-compute:1", "scheduler_fanout_ctl1:nova-scheduler:1", "xcompute", "#", ""),
}


def allowed(action: str, names: set[str]) -> set[str]:
    # RabbitMQ looks for the expression anywhere in the name.
    return {name for name in names if re.search(COMPUTE[action], name)}


def test_a_compute_reads_and_declares_its_own_queues_only() -> None:
    for action in ("configure", "read", "write"):
        assert allowed(action, OWN) == OWN
        assert allowed(action, FOREIGN) == set()


def test_a_compute_publishes_on_the_exchanges_that_it_needs() -> None:
    exchanges = {"nova", "compute_fanout", "scheduler_fanout", "conductor_fanout", "amq.default", "amq.topic"}
    assert allowed("write", exchanges) == {"nova", "compute_fanout", "scheduler_fanout", "amq.default"}
    assert allowed("configure", exchanges) == {"nova", "compute_fanout", "scheduler_fanout"}
    assert allowed("read", exchanges) == {"nova", "compute_fanout"}


def test_a_compute_binds_a_queue_to_its_own_messages_only() -> None:
    (topic,) = COMPUTE["topics"]
    keys = {"compute", "compute.cmp1.site", "compute.cmp2.site", "conductor", "#", "compute.#", "compute.*"}
    assert {key for key in keys if re.search(topic["read"], key)} == {"compute", "compute.cmp1.site"}
    keys = {"conductor", "compute.cmp2.site", "scheduler", "notifications.info"}
    assert {key for key in keys if re.search(topic["write"], key)} == {"conductor", "compute.cmp2.site"}


def test_each_compute_has_a_password_of_its_own() -> None:
    other = filters.compute_messaging("cmp2", "seed", "openstack")
    assert (COMPUTE["user"], other["user"]) == ("compute-cmp1.site", "compute-cmp2")
    assert COMPUTE["password"] != other["password"]
    again = filters.compute_messaging("cmp1.site", "seed", "openstack", "2")
    assert again == COMPUTE | {"user": "compute2-cmp1.site"}
    with pytest.raises(AnsibleFilterError, match="compute_messaging: the secret"):
        filters.compute_messaging("cmp1", "", "openstack")


def test_definitions_have_every_account() -> None:
    nova = {"user": "nova", "password": "a/b", "virtual_host": "openstack"}
    found = filters.rabbitmq_definitions([nova, COMPUTE])
    assert found["users"][0] == {
        "name": "nova",
        "password_hash": filters.rabbitmq_password_hash("a%2Fb"),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": [],
    }
    assert found["vhosts"] == [{"name": "openstack", "default_queue_type": "quorum"}]
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    assert found["permissions"] == [
        {"user": "nova", "vhost": "openstack", **everything},
        {"user": "compute-cmp1.site", "vhost": "openstack", **{key: COMPUTE[key] for key in everything}},
    ]
    assert found["topic_permissions"] == [
        {"user": "compute-cmp1.site", "vhost": "openstack", **COMPUTE["topics"][0]},
    ]


def test_rpc_servers_are_those_of_hosts_that_answer() -> None:
    about = {"unit": "u", "layer": "L", "exchange": "nova", "config": "/etc/nova.conf"}
    other = about | {"exchange": "openstack", "config": "/etc/cinder.conf"}
    services: list[dict[str, Any]] = [
        {"name": "one", "groups": ["controller"], "rpc": [{"topic": "conductor", "suffix": "", **about}]},
        {"name": "two", "groups": ["controller"], "rpc": [{"topic": "volume", "suffix": "@ceph", **other}]},
        {"name": "three", "groups": ["compute"], "rpc": [{"topic": "compute", **about}]},
        {"name": "four", "groups": ["compute"]},
    ]
    groups = {"controller": ["ctl1", "ctl2"], "compute": ["ctl1", "cmp1"]}
    nova, cinder = filters.rpc_servers(services, groups, ["ctl2"])
    assert (nova["config"], nova["exchange"]) == ("/etc/nova.conf", "nova")
    assert [(one["topic"], one["server"], one["host"]) for one in nova["servers"]] == [
        ("conductor", "ctl1", "ctl1"),
        ("compute", "ctl1", "ctl1"),
        ("compute", "cmp1", "cmp1"),
    ]
    assert cinder["servers"] == [
        {"topic": "volume", "server": "ctl1@ceph", "host": "ctl1", "unit": "u", "layer": "L"},
    ]
