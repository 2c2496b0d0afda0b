# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ceph on the hosts of the group storage, and nothing of it on clouds without the group."""

from __future__ import annotations

import re

import pytest
from ansible.template import trust_as_template

from plugins.filter.ceph import ceph_key
from tests.render import rendering


def keyrings(host: str) -> dict[str, str]:
    """The files of a host with keys of Ceph."""
    files = rendering.load("storage").files(host)
    return {file.dest: file.text for file in files if file.text and re.search(r"^\s*key = AQA", file.text, re.M)}


@pytest.mark.parametrize("host", ["cloud1", "sto2"])
def test_no_diff_shows_a_key(host: str) -> None:
    templar = rendering.load("storage").templar(host)
    hidden = templar.template(trust_as_template("{{ secrets_values }}"))
    found = keyrings(host)
    assert "/etc/ceph/ceph.client.admin.keyring" in found
    for path, text in found.items():
        assert {*re.findall(r"^\s*key = (\S+)$", text, re.M)} <= {*hidden}, path


@pytest.mark.parametrize("host", ["cloud1", "sto2"])
def test_files_with_keys_are_for_their_owners(host: str) -> None:
    modes = {file.dest: int(file.mode, 8) for file in rendering.load("storage").files(host)}
    assert all(modes[path] & 0o007 == 0 for path in keyrings(host))


def test_hosts_that_only_store_have_no_keys_of_services() -> None:
    variables = rendering.load("storage").templar("sto2")
    seed = str(variables.template(trust_as_template("{{ ceph_seed }}")))
    keys = {ceph_key(seed, f"client.{name}") for name in ("glance", "nova", "cinder", "cinder-backup")}
    assert not [path for path, text in keyrings("sto2").items() if any(key in text for key in keys)]


def test_clouds_without_storage_have_nothing_of_ceph() -> None:
    for inventory in ("all_in_one", "multihost"):
        sample = rendering.load(inventory)
        for host in sample.hosts():
            assert not [file.dest for file in sample.files(host) if "ceph" in file.dest]
            packages = {package for service in sample.services(host) for package in service["packages"]}
            assert not {package for package in packages if "ceph" in package or "cinder" in package}
