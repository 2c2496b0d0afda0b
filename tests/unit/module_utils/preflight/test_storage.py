# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Messages about what OSDs are to be made of, and about the store as a whole."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.kilonova.preflight import storage
from ansible.module_utils.kilonova.storage.keys import osd_uuid

FSID = "5b3e6f52-5d2a-4f0e-9d1b-6f8c9f1c2d3e"
OTHER = "00000000-5d2a-4f0e-9d1b-6f8c9f1c2d3e"
FILE = {"file": "/var/osd1", "size": "20G"}


def found(kind: str = "block", real: str = "/dev/sdb", **more: Any) -> dict[str, Any]:
    empty = {"osd": "", "size_mib": 10**6, "read_only": False, "mounts": [], "holds": []}
    return {"kind": kind, "real": real, **empty, **more}


def check(wanted: Any, devices: dict[str, Any] | None = None) -> list[str]:
    return storage.check_devices({"devices": devices or {}}, wanted, "osd1", FSID)


def test_empty_devices_and_files_are_fine() -> None:
    assert check(["/dev/sdb", FILE], devices={"/dev/sdb": found(), "/var/osd1": found("", "/var/osd1")}) == []


def test_own_osds_are_fine() -> None:
    disk = found(osd=osd_uuid(FSID, "osd1", "/dev/sdb"), holds=["LVM2_member", "lvm ceph"])
    file = found("file", "/var/osd1", osd=osd_uuid(FSID, "osd1", "/var/osd1"), holds=["data"])
    assert check(["/dev/sdb", FILE], devices={"/dev/sdb": disk, "/var/osd1": file}) == []


@pytest.mark.parametrize(
    ("entry", "at", "why"),
    [
        ("/dev/sdb", None, "this host has nothing of that name"),
        ("/dev/sdb", found("file"), "this is no block device"),
        ("/dev/sdb", found(mounts=["/srv"]), "it is mounted at /srv"),
        ("/dev/sdb", found(read_only=True), "it can only be read"),
        ("/dev/sdb", found(holds=["ext4"]), "it holds ext4. If nothing on it is needed: wipefs --all /dev/sdb"),
        ("/dev/sdb", found(osd=OTHER), f"it holds an OSD ({OTHER})"),
        ("/dev/sdb", found(size_mib=100), "it has 100 MiB, and an OSD needs 5120"),
        (FILE, found("block", "/var/osd1"), "this is a block device"),
        (FILE, found("other", "/var/osd1"), "neither a file nor free"),
        (FILE, found("file", "/var/osd1", osd=OTHER), "it holds the data of another OSD"),
        ("sdb", None, "this is no absolute path"),
        ({"file": "/var/osd1"}, None, "this is neither a path nor a file with a size"),
        ({"file": "osd1", "size": "20G"}, None, "this is neither a path nor a file with a size"),
        ({"file": "/var/osd1", "size": "20"}, None, "'20' is no size"),
        ({"file": "/var/osd1", "size": "1G"}, None, "an OSD needs 5120 MiB"),
        (7, None, "this is neither a path"),
    ],
)
def test_what_no_osd_can_be_made_of(entry: Any, at: dict[str, Any] | None, why: str) -> None:
    path = entry["file"] if isinstance(entry, dict) else str(entry)
    (text,) = check([entry], devices={path: at} if at else {})
    assert text.startswith("ceph_osd_devices = ") and why in text


def test_a_device_with_two_names() -> None:
    (text,) = check(["/dev/sdb", "/dev/by-id/x"], devices={"/dev/sdb": found(), "/dev/by-id/x": found()})
    assert "'/dev/by-id/x': /dev/by-id/x, which is /dev/sdb, is named twice" in text
    (text,) = check(["/dev/sdb", "/dev/sdb"], devices={"/dev/sdb": found()})
    assert "/dev/sdb, is named twice" in text


def test_a_host_without_devices() -> None:
    (text,) = check([])
    assert "this host of the group storage stores nothing without one" in text
    assert check("/dev/sdb") == []


def test_memory() -> None:
    assert storage.check_memory({"memory_mib": 8192}, 4608, 1024, ["/dev/sdb"]) == []
    (text,) = storage.check_memory({"memory_mib": 5000}, 4608, 1024, ["/dev/sdb", "/dev/sdc"])
    assert text.startswith(
        "ceph_osd_memory_target_mib = 1024: 2 OSDs of 1024 MiB each and the other services (4608 MiB)"
    )


def test_another_cluster() -> None:
    assert storage.check_identity({"ceph_fsids": [FSID]}, FSID) == storage.check_identity({}, FSID) == []
    (text,) = storage.check_identity({"ceph_fsids": [OTHER]}, FSID)
    assert text.startswith("ceph_seed = (hidden): it makes the cluster") and OTHER in text


EXISTING = {"fsid": FSID, "monitors": ["192.0.2.71"], "keys": dict.fromkeys(storage.CLIENTS, "k")}


@pytest.mark.parametrize(
    ("existing", "hosts", "why"),
    [
        (EXISTING, ["osd1"], "the group storage has hosts as well (osd1)"),
        ({"fsid": FSID}, [], "it lacks monitors, keys"),
        ({**EXISTING, "keys": {"glance": "k"}}, [], "it lacks keys.nova, keys.cinder, keys.cinder-backup"),
        ({**EXISTING, "fsid": "mine"}, [], "its fsid, 'mine', is no UUID"),
    ],
)
def test_an_existing_cluster_with_problems(existing: dict[str, Any], hosts: list[str], why: str) -> None:
    (text,) = storage.check_existing(existing, hosts)
    assert why in text and "'k'" not in text


def test_an_existing_cluster_or_none() -> None:
    assert storage.check_existing(EXISTING, []) == storage.check_existing({}, ["osd1"]) == []


def test_monitors_that_do_not_answer() -> None:
    assert storage.check_monitors({}, EXISTING) == storage.check_monitors({"silent_peers": []}, EXISTING) == []
    (text,) = storage.check_monitors({"silent_peers": ["192.0.2.71:3300"]}, EXISTING)
    assert "its monitors do not answer this host at 192.0.2.71:3300" in text


@pytest.mark.parametrize(
    ("hosts", "size", "notes"), [([], 0, 0), (["a"], 1, 1), (["a", "b"], 2, 1), (["a", "b", "c"], 3, 0)]
)
def test_notes_about_few_hosts(hosts: list[str], size: int, notes: int) -> None:
    assert len(storage.note_hosts(hosts, size)) == notes
