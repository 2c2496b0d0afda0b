# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What the answers of monitors mean for those who store something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ceph_health
import pytest
from ansible.module_utils.kilonova.storage import cluster, health

from plugins.filter.health import storage_lines

FULL = {
    "stats": {"total_used_raw_ratio": 0.1731},
    "pools": [{"name": "images", "stats": {"stored": 5 * 2**20, "max_avail": 7 * 2**30}}],
}
TREE = {
    "nodes": [
        {"id": -1, "name": "default", "type": "root", "children": [-3]},
        {"id": -3, "name": "osd1", "type": "host", "children": [0, 1]},
        {"id": 1, "name": "osd.1", "type": "osd", "status": "down", "reweight": 0},
        {"id": 0, "name": "osd.0", "type": "osd", "status": "up", "reweight": 1.0},
    ],
    "stray": [],
}
QUORUM = {"monmap": {"mons": [{"name": "osd1"}, {"name": "osd2"}]}, "quorum_names": ["osd1"]}


def check(severity: str, text: str, *details: str, muted: bool = False) -> dict[str, Any]:
    found = [{"message": line} for line in details]
    return {"severity": severity, "summary": {"message": text}, "detail": found, "muted": muted}


def judged(**checks: Any) -> health.Health:
    status = "HEALTH_WARN" if checks else "HEALTH_OK"
    return health.judge({"status": status, "checks": checks}, FULL, TREE, QUORUM)


def test_a_cluster_that_is_well() -> None:
    found = judged()
    assert (found.status, found.problems, found.notes, found.used_percent) == ("HEALTH_OK", {}, {}, 17.3)
    assert found.pools == [{"name": "images", "stored_mib": 5, "available_mib": 7168}]
    assert found.osds == [
        {"number": 0, "host": "osd1", "up": True, "in": True},
        {"number": 1, "host": "osd1", "up": False, "in": False},
    ]
    assert found.monitors == [{"name": "osd1", "up": True}, {"name": "osd2", "up": False}]


def test_problems_and_notes() -> None:
    found = judged(
        OSD_DOWN=check("HEALTH_WARN", "1 osds down", "osd.1 is down"),
        MDS_ALL_DOWN=check("HEALTH_ERR", "1 filesystem is offline"),
        MON_DISK_LOW=check("HEALTH_WARN", "mon osd1 is low on available space"),
        POOL_FULL=check("HEALTH_WARN", "1 pool full", muted=True),
    )
    assert found.problems == {"MDS_ALL_DOWN": "1 filesystem is offline", "OSD_DOWN": "1 osds down\n    osd.1 is down"}
    assert found.notes == {"MON_DISK_LOW": "mon osd1 is low on available space"}


def test_details_are_few() -> None:
    text = health.message_of(check("HEALTH_WARN", "pgs", *(f"pg {number}" for number in range(9))))
    assert text.splitlines()[-1] == "    and 4 more" and len(text.splitlines()) == 7


def test_logs_of_what_is_down_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "DIRECTORIES", str(tmp_path))
    (tmp_path / "ceph-0").mkdir()
    assert health.logs_here(judged(), "osd1", 3) == []
    (tmp_path / "ceph-1").mkdir()
    (text,) = health.logs_here(judged(), "osd1", 3)
    assert "ceph-osd@1" in text
    assert ["ceph-mon@osd2" in text for text in health.logs_here(judged(), "osd2", 3)] == [False, True]


def test_the_commands_that_start_what_is_down() -> None:
    assert health.commands(judged()) == [
        "systemctl restart ceph-osd@1 on osd1",
        "systemctl restart ceph-mon@osd2 on osd2",
    ]


def test_a_cluster_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_module: Callable[..., dict[str, Any]]
) -> None:
    monkeypatch.setattr(cluster, "CONFIGURATION", str(tmp_path / "ceph.conf"))
    monkeypatch.setattr(health, "reach", cluster.Cluster)
    found = run_module(ceph_health, name="osd1", report_only=True)
    assert found["status"] == "unknown" and "no quorum of monitors answers" in found["problems"][0]
    found = run_module(ceph_health, name="osd1")
    assert found["failed"] and "ceph-mon@osd1" in found["msg"]


def test_the_lines_of_status() -> None:
    assert storage_lines([]) == storage_lines([{"skipped": True}]) == []
    unknown = health.report(health.Health("unknown", {"": "no quorum"}))
    lines = storage_lines([unknown, health.report(judged(OSD_DOWN=check("HEALTH_WARN", "1 osds down")))])
    assert lines[:4] == [
        "Store: HEALTH_WARN, 17.3 % full",
        "  1 osds down",
        "  down: osd.1 of osd1",
        "  monitors not in the quorum: osd2",
    ]
    assert storage_lines([unknown])[1] == "  no quorum"
