# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The module ceph_access: what each refusal of a cluster of others means for the operator."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import ceph_access
import pytest

FSID = "5b3e6f52-5d2a-4f0e-9d1b-6f8c9f1c2d3e"


class Error(Exception):
    """As the library of Ceph raises it."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.errno = number


class ObjectNotFound(Error):
    """No such object, or no such pool."""


def absent() -> None:
    raise ObjectNotFound("no object", errno.ENOENT)


class Ceph:
    """A cluster of which parts can be taken away."""

    def __init__(self) -> None:
        self.connecting: Error | None = None
        self.fsid = FSID
        self.version = "ceph version 18.2.7 (abc) reef (stable)"
        self.refused: set[str] = set()
        self.pools = {"images", "vms"}
        self.settings: list[tuple[str, dict[str, str]]] = []
        self.closed = 0

    def attempt(self, what: str) -> None:
        if what in self.refused:
            raise Error("not permitted", errno.EPERM)
        absent()

    def library(self) -> SimpleNamespace:
        cluster = self

        class Pool:
            def __init__(self, name: str) -> None:
                self.name = name

            def __enter__(self) -> Pool:
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def read(self, name: str) -> None:
                cluster.attempt(f"{self.name}: read")

            def execute(self, name: str, kind: str, method: str, data: bytes) -> None:
                cluster.attempt(f"{self.name}: call")

            def remove_object(self, name: str) -> None:
                cluster.attempt(f"{self.name}: write")

        class Rados:
            def __init__(self, name: str, conf: dict[str, str]) -> None:
                cluster.settings.append((name, conf))

            def connect(self, timeout: int) -> None:
                if cluster.connecting:
                    raise cluster.connecting

            def shutdown(self) -> None:
                cluster.closed += 1

            def get_fsid(self) -> str:
                return cluster.fsid

            def open_ioctx(self, pool: str) -> Pool:
                if pool not in cluster.pools:
                    absent()
                return Pool(pool)

            def mon_command(self, command: str, data: bytes, timeout: int) -> tuple[int, bytes, str]:
                prefix = json.loads(command)["prefix"]
                if prefix in cluster.refused:
                    return -errno.EACCES, b"", "access denied"
                if prefix == "version":
                    return 0, json.dumps({"version": cluster.version}).encode(), ""
                return -errno.EINVAL, b"", "unable to parse address"

        return SimpleNamespace(Rados=Rados, Error=Error, ObjectNotFound=ObjectNotFound)


@pytest.fixture
def ceph(monkeypatch: pytest.MonkeyPatch) -> Ceph:
    ceph = Ceph()
    monkeypatch.setitem(sys.modules, "rados", ceph.library())
    return ceph


@pytest.fixture
def run(ceph: Ceph, run_module: Callable[..., dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    client = {"name": "nova", "key": "secret", "writes": ["vms"], "reads": ["images"]}
    return lambda: run_module(ceph_access, fsid=FSID, monitors=["192.0.2.71"], clients=[client])


def test_a_cluster_that_will_do(ceph: Ceph, run: Callable[[], dict[str, Any]]) -> None:
    result = run()
    assert (result["changed"], result["release"]) == (False, ceph.version)
    ((name, settings),) = ceph.settings
    assert (name, settings["key"], settings["mon_host"]) == ("client.nova", "secret", "[v2:192.0.2.71:3300]")
    assert ceph.closed == 1


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EACCES, "the monitors refuse the key of client.nova"),
        (errno.EINVAL, "the key of client.nova is no key of Ceph"),
        (errno.ETIMEDOUT, "ceph_existing = ['192.0.2.71']: no monitor answered client.nova within 15 s"),
    ],
)
def test_no_connection(ceph: Ceph, run: Callable[[], dict[str, Any]], number: int, text: str) -> None:
    ceph.connecting = Error("no", number)
    result = run()
    assert len(result["problems"]) == 1 and text in result["msg"] and "secret" not in result["msg"]
    assert ceph.closed == 1


def test_another_cluster(ceph: Ceph, run: Callable[[], dict[str, Any]]) -> None:
    ceph.fsid = "0b1a6c3e-57f0-4f4c-9f0c-1f2f5a3a9f6d"
    (problem,) = run()["problems"]
    assert f"Write fsid: {ceph.fsid}" in problem


def test_an_old_release(ceph: Ceph, run: Callable[[], dict[str, Any]]) -> None:
    ceph.version = "ceph version 15.2.17 (abc) octopus (stable)"
    (problem,) = run()["problems"]
    assert "its monitors are of release 15" in problem and "services need 16" in problem


def test_a_pool_that_is_missing(ceph: Ceph, run: Callable[[], dict[str, Any]]) -> None:
    ceph.pools = {"vms"}
    assert [one for one in run()["problems"] if "the cluster has no pool 'images'" in one]


def test_all_rights_that_are_missing(ceph: Ceph, run: Callable[[], dict[str, Any]]) -> None:
    ceph.refused = {"osd blocklist", "vms: write", "vms: call", "images: read"}
    problems = run()["problems"]
    assert len(problems) == 3
    assert "could not break the locks of a host that died. Give client.nova mon 'profile rbd'" in problems[0]
    assert (
        "it may not call methods, write in the pool 'vms'. Give client.nova osd 'profile rbd pool=vms'" in problems[1]
    )
    assert (
        "it may not read in the pool 'images'. Give client.nova osd 'profile rbd-read-only pool=images'" in problems[2]
    )


def test_what_it_reads_it_need_not_write(ceph: Ceph, run: Callable[[], dict[str, Any]]) -> None:
    ceph.refused = {"images: write"}
    assert run()["changed"] is False


def test_monitors_that_answer_nothing(ceph: Ceph, run: Callable[[], dict[str, Any]]) -> None:
    ceph.refused = {"version"}
    (problem,) = run()["problems"]
    assert "it may not ask the monitors" in problem


def test_before_the_library_is_there(
    monkeypatch: pytest.MonkeyPatch, run_module: Callable[..., dict[str, Any]]
) -> None:
    monkeypatch.setitem(sys.modules, "rados", None)
    arguments: dict[str, Any] = {"fsid": FSID, "monitors": ["192.0.2.71"], "clients": []}
    assert "python3-rados is not installed" in run_module(ceph_access, **arguments)["msg"]
    assert "could not be looked at" in run_module(ceph_access, check=True, **arguments)["not_looked_at"]
