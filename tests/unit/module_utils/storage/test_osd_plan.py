# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What is done for an OSD: nothing that could lose data."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.kilonova.storage.osd_plan import AGAIN, KEEP, MAKE, PRIME, Known, Local, Refused, decide

UUID = "7e0b6f52-5d2a-4f0e-9d1b-6f8c9f1c2d3e"
FILE = {"path": "/var/osd1", "size": "20G", "uuid": UUID}
DISK = {"path": "/dev/sdb", "size": "", "uuid": UUID}
NEVER_UP, UP, DOWN = Known(3, False, True), Known(3, True, False), Known(3, False, False)


def found(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "osd": "", "size_mib": 0, "read_only": False, "mounts": [], "holds": [], **more}


NOTHING, EMPTY, SPARSE = found(""), found("block"), found("file")
OURS = found("file", osd=UUID, holds=["data"])


@pytest.mark.parametrize(
    ("osd", "known", "local", "decision"),
    [
        (FILE, None, Local(NOTHING), MAKE),
        (FILE, None, Local(SPARSE), MAKE),
        (FILE, NEVER_UP, Local(NOTHING), AGAIN),
        (FILE, NEVER_UP, Local(SPARSE), AGAIN),
        # Killed while it was made: nothing has ever been stored.
        (FILE, NEVER_UP, Local(OURS), AGAIN),
        (FILE, NEVER_UP, Local(found("file", holds=["data"])), AGAIN),
        # Made, and killed before it was started.
        (FILE, NEVER_UP, Local(OURS, ready=True), KEEP),
        (FILE, UP, Local(OURS, ready=True), KEEP),
        (FILE, DOWN, Local(OURS), PRIME),
        (DISK, None, Local(EMPTY), MAKE),
        (DISK, NEVER_UP, Local(EMPTY), AGAIN),
        (DISK, NEVER_UP, Local(found("block", holds=["LVM2_member"]), volume=True), AGAIN),
        (DISK, UP, Local(found("block", holds=["LVM2_member"]), volume=True, ready=True), KEEP),
        (DISK, DOWN, Local(found("block", holds=["LVM2_member"]), volume=True), PRIME),
    ],
)
def test_decisions(osd: dict[str, str], known: Known | None, local: Local, decision: str) -> None:
    assert decide(osd, "osd1", known, local) == decision


@pytest.mark.parametrize(
    ("osd", "known", "local", "why"),
    [
        # Data that are gone.
        (FILE, DOWN, Local(NOTHING), "/var/osd1: osd.3 of osd1 has been in the cluster, and its data are gone"),
        (FILE, DOWN, Local(SPARSE), "its data are gone"),
        (DISK, DOWN, Local(EMPTY), "its data are gone"),
        (DISK, DOWN, Local(NOTHING), "its data are gone"),
        # Data of others.
        (FILE, None, Local(found("file", osd="other", holds=["data"])), r"holds the data of another OSD \(other\)"),
        (FILE, None, Local(found("file", holds=["data"])), "holds data that are not of this OSD"),
        (FILE, DOWN, Local(found("file", holds=["data"])), "holds data that are not of this OSD"),
        (FILE, None, Local(OURS), "that the cluster does not know"),
        (DISK, None, Local(found("block"), volume=True), "ceph-volume lvm zap --destroy /dev/sdb"),
        (DISK, None, Local(found("block", holds=["ext4"])), "not empty: it holds ext4.*wipefs --all /dev/sdb"),
        (DISK, None, Local(found("block", holds=["part sdb1"])), "not empty: it holds part sdb1"),
        (DISK, NEVER_UP, Local(found("block", osd=UUID)), "not empty: it holds an OSD"),
        (DISK, None, Local(found("block", mounts=["/srv"])), "mounted at /srv"),
        # What is no place for one.
        (DISK, None, Local(found("block", read_only=True)), "can only be read"),
        (DISK, None, Local(NOTHING), "no block device on osd1"),
        (DISK, None, Local(found("file")), "no block device on osd1"),
        (FILE, None, Local(EMPTY), "is a block device"),
        (FILE, None, Local(found("other")), "neither a file nor free"),
    ],
)
def test_refusals(osd: dict[str, str], known: Known | None, local: Local, why: str) -> None:
    with pytest.raises(Refused, match=why):
        decide(osd, "osd1", known, local)
