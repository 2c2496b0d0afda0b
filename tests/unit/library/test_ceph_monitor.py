# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A new cluster begins only where there is proof that there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ceph_monitor
import pytest
from ansible.module_utils.kilonova.storage import cluster, data, monitor

ARGUMENTS = {"name": "osd1", "fsid": "f", "address": "[v2:192.0.2.31:3300]", "keyring": "k"}
NOTHING: dict[str, list[str] | None] = {"osd1": [], "osd2": []}


def test_the_first_host_begins_where_no_host_has_data() -> None:
    assert monitor.refusal(True, NOTHING, "timed out") == ""


@pytest.mark.parametrize(
    ("founder", "found", "why"),
    [
        (
            True,
            {"osd1": [], "osd2": ["/var/lib/ceph/osd/ceph-0"]},
            "osd2: /var/lib/ceph/osd/ceph-0). A new cluster would",
        ),
        (True, {"osd1": ["/dev/sdb"], "osd2": None}, "osd1: /dev/sdb"),
        (True, {"osd1": [], "osd2": None}, "and osd2 could not be looked at: a cluster may exist there"),
        (False, NOTHING, "The first host of the group storage begins a cluster"),
    ],
)
def test_nothing_begins_without_proof(founder: bool, found: dict[str, list[str] | None], why: str) -> None:
    assert why in monitor.refusal(founder, found, "timed out")


@pytest.fixture(autouse=True)
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cluster, "CONFIGURATION", str(tmp_path / "ceph.conf"))
    monkeypatch.setattr(monitor, "STORES", str(tmp_path / "mon"))
    return tmp_path / "mon"


def test_a_store_that_exists_is_left_alone(stores: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    (stores / "ceph-osd1").mkdir(parents=True)
    assert not run_module(ceph_monitor, **ARGUMENTS, data={"osd1": None})["changed"]


def test_a_dry_run_predicts_the_store(
    run_module: Callable[..., dict[str, Any]], fake_program: Callable[..., Path]
) -> None:
    for _ in range(2):
        assert run_module(ceph_monitor, check=True, **ARGUMENTS, founder=True, data=NOTHING)["changed"]
        # With the packages, before ceph.conf.
        fake_program("ceph-mon", "exit 1")


def test_a_refusal_names_what_was_found(run_module: Callable[..., dict[str, Any]]) -> None:
    found = run_module(ceph_monitor, **ARGUMENTS, founder=True, data={"osd1": ["/var/lib/ceph/mon/ceph-old"]})
    assert found["failed"] and "osd1: /var/lib/ceph/mon/ceph-old" in found["msg"]


def test_data_of_a_cluster_are_found(tmp_path: Path) -> None:
    assert data.ceph_data(root=str(tmp_path)) == []
    for path in ("mon/ceph-a", "osd/ceph-0", "mon/.kilonova-x", "osd/ceph-empty"):
        (tmp_path / "var/lib/ceph" / path).mkdir(parents=True)
    for path in ("mon/ceph-a", "osd/ceph-0", "mon/.kilonova-x"):
        (tmp_path / "var/lib/ceph" / path / "keyring").touch()
    disk = tmp_path / "disk"
    disk.write_bytes(b"bluestore block device\n7e0b6f52-5d2a-4f0e-9d1b-6f8c9f1c2d3e\n" + bytes(4096))
    found = data.ceph_data([str(disk), str(tmp_path / "absent")], root=str(tmp_path))
    assert [path.removeprefix(str(tmp_path)) for path in found] == [
        "/var/lib/ceph/mon/ceph-a",
        "/var/lib/ceph/osd/ceph-0",
        "/disk",
    ]
    assert data.device(str(disk))["osd"] == data.label(str(disk)) == "7e0b6f52-5d2a-4f0e-9d1b-6f8c9f1c2d3e"


def test_what_is_at_a_path(tmp_path: Path) -> None:
    assert data.device(str(tmp_path / "absent"))["kind"] == ""
    assert data.device(str(tmp_path))["kind"] == "other"
    sparse, full = tmp_path / "sparse", tmp_path / "full"
    with sparse.open("wb") as stream:
        stream.truncate(2**21)
    full.write_bytes(b"x" * 5000)
    assert data.device(str(sparse)) | {"real": ""} == {
        **{"kind": "file", "real": "", "osd": "", "size_mib": 2, "read_only": False, "mounts": [], "holds": []}
    }
    assert data.device(str(full))["holds"] == ["data"]
