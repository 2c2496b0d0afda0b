# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Messages about host names, groups, the batch size and tags."""

from __future__ import annotations

import pytest
from ansible.module_utils.kilonova.preflight import inventory


@pytest.mark.parametrize("name", ["node1", "node-1.example.org", "NODE", "1st"])
def test_valid_host_names(name: str) -> None:
    assert inventory.check_host_name(name) == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("node_1", "a host name consists of letters, digits and -, does not begin or end with -, and has at most 63 "
                   "characters between two dots"),
        ("-node", "a host name consists of letters, digits and -, does not begin or end with -, and has at most 63 "
                  "characters between two dots"),
        ("10.0.0.2", "this is an address, and the name in the inventory becomes the host name"),
        ("a." * 40, "a host name has at most 64 characters, this has 80"),
    ],
)  # fmt: skip
def test_invalid_host_name(name: str, why: str) -> None:
    assert inventory.check_host_name(name) == [
        f"inventory_hostname = '{name}': {why}. Rename the host in the inventory to something like node-1, and set "
        "ansible_host to the address to reach it by."
    ]


def test_groups_of_an_all_in_one_host() -> None:
    groups = {"all": ["a"], "controller": ["a"], "compute": ["a"]}
    assert inventory.check_groups("a", "a", groups) == []
    assert inventory.note_groups("a", "a", groups) == []


def test_host_in_no_group() -> None:
    assert inventory.check_groups("b", "a", {"controller": ["a"], "compute": ["a"]}) == [
        "Host b is in none of the groups controller, compute and storage: nothing would be deployed on it. Add it to "
        "one of them, or remove it."
    ]


def test_host_that_only_stores() -> None:
    groups = {"all": ["a", "b"], "controller": ["a"], "compute": ["a"], "storage": ["b"]}
    assert inventory.check_groups("b", "a", groups) == []
    assert inventory.note_groups("a", "a", groups) == []


def test_other_hosts_of_the_inventory_are_noted() -> None:
    groups = {"all": ["a", "b", "c"], "controller": ["a"], "compute": ["a"], "lab": ["c"]}
    assert inventory.note_groups("a", "a", groups) == [
        "Host b is in none of the groups controller, compute and storage, so nothing is deployed on it."
    ]
    assert inventory.note_groups("c", "a", groups) == []


def test_no_controller() -> None:
    assert inventory.check_groups("a", "a", {"compute": ["a"]}) == [
        "The group controller has no host: the APIs, the database and the queue run there. Put one host into it."
    ]


def test_no_compute() -> None:
    assert inventory.check_groups("a", "a", {"controller": ["a"]}) == [
        "The group compute has no host: guests run there. Put at least one host into it; the controller may be in both."
    ]


def test_the_inventory_s_problems_are_said_once() -> None:
    assert inventory.check_groups("b", "a", {"compute": ["a", "b"]}) == []


@pytest.mark.parametrize("value", [1, "7", "1%", "25%", "100%"])
def test_right_batch(value: object) -> None:
    assert inventory.check_batch(value, "ctl1", value) == []


@pytest.mark.parametrize("value", [0, -1, "0", "0%", "101%", "half", "", "1.5", None])
def test_wrong_batch(value: object) -> None:
    assert inventory.check_batch(value, "ctl1", value) == [
        f"cloud_compute_batch = {value!r}: this is neither a number of computes from 1 nor a percentage from 1% to "
        "100%. Write a value such as 1 or 25%."
    ]


def test_batch_of_some_hosts_only() -> None:
    assert inventory.check_batch(2, "ctl1", "100%") == [
        "cloud_compute_batch = 2: it must be the same on all hosts, and is '100%' on ctl1, whose value is used. Write "
        "it in group_vars/all, and nowhere else."
    ]
    assert inventory.check_batch("2", "ctl1", 2) == []


TAGS = ["always", "nova", "neutron"]


@pytest.mark.parametrize("run", [["all"], ["nova", "always"], ["untagged"]])
def test_known_tags(run: list[str]) -> None:
    assert inventory.check_tags(TAGS, run) == []


def test_unknown_tags() -> None:
    assert inventory.check_tags(TAGS, ["nvoa", "nova", "xyzzy"]) == [
        "--tags = 'nvoa': no task has this tag, so nothing would run for it. Did you mean nova? The tags are: neutron, "
        "nova.",
        "--tags = 'xyzzy': no task has this tag, so nothing would run for it. Write one of: neutron, nova.",
    ]


def test_two_names_of_one_host() -> None:
    connections = {"a": ("10.0.0.1", "22"), "b": ("10.0.0.1", "22"), "c": ("10.0.0.1", "2222"), "d": ("10.0.0.2", "22")}
    assert inventory.check_one_name("a", connections) == [
        "ansible_host = '10.0.0.1': b in the inventory is the same host (port 22). Give each host its own address, "
        "or leave one name."
    ]
    assert inventory.check_one_name("c", connections) == inventory.check_one_name("d", connections) == []
