# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Test what the results of tasks tell of changes, and how it is reported."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.kilonova.system.changes import entries, items, obstacles, report, verdict

MASKED = "nova-api.service is masked and cannot be started: run 'systemctl unmask nova-api.service'"
DOWN = "MariaDB could not be looked at: it is down"


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"changed_files": ["/a", "/b"]}, ["/a", "/b"]),
        ({"changes": ["create database nova"]}, ["create database nova"]),
        (
            {
                "started": ["x.service"],
                "restarted": [{"name": "y.service", "reason": "/etc/y changed"}],
                "enabled": ["x.service", "z.service"],
            },
            ["start x.service", "restart y.service", "enable z.service"],
        ),
        (
            {"missing": ["nova-doc"], "repaired": ["dpkg had not finished 2 packages"], "lists_updated": False},
            ["install nova-doc", "dpkg had not finished 2 packages"],
        ),
        ({"missing": ["cmp1"], "hosts": ["cmp1"]}, ["map cmp1 to its cell"]),
        ({"msg": "whatever"}, ["The task"]),
        ({"changed_files": []}, ["The task"]),
        ({"dest": "/a"}, ["/a"]),
        ({"path": "/b"}, ["/b"]),
    ],
)
def test_a_result_tells_what_changed(result: dict[str, Any], expected: list[str]) -> None:
    assert items(result, "The task") == expected


def test_what_needs_the_operator_stands_beside_what_changes() -> None:
    result = {"changed": True, "started": ["glance-api.service"], "needs_you": [MASKED], "not_looked_at": DOWN}
    assert entries("ctl1", "Start", result) == [
        {"host": "ctl1", "task": "Start", "items": ["start glance-api.service"]},
        {"host": "ctl1", "task": "Start", "needs_you": MASKED},
        {"host": "ctl1", "task": "Start", "not_looked_at": DOWN},
    ]


def test_nothing_changed_is_no_entry() -> None:
    assert entries("ctl1", "Start", {"changed": False, "started": [], "needs_you": []}) == []


def test_a_failure_could_not_look() -> None:
    assert entries("ctl1", "Create", {"failed": True, "changed": True, "msg": "no socket\nlogs"}) == [
        {"host": "ctl1", "task": "Create", "not_looked_at": "no socket"}
    ]


def test_a_failed_item_hides_no_other_item() -> None:
    loop = [{"changed": True, "path": "/a"}, {"failed": True, "msg": "broken"}, {"needs_you": [MASKED]}]
    assert [set(entry) - {"host", "task"} for entry in entries("ctl1", "Loop", {"failed": True, "results": loop})] == [
        {"items"},
        {"needs_you"},
        {"not_looked_at"},
    ]


def test_the_report_is_ordered_by_host_and_kind() -> None:
    record: list[dict[str, Any]] = [
        {"host": "cmp1", "task": "A", "not_looked_at": DOWN},
        {"host": "cmp2", "task": "A", "items": ["x"]},
        {"host": "cmp1", "task": "A", "needs_you": MASKED},
        {"host": "cmp1", "task": "B", "items": ["y", "z"]},
    ]
    first = [f"  needs you: {MASKED}", f"  could not look: {DOWN} (A)"]
    assert report(record) == ["cmp1", "  B", "    y", "    z", *first, "cmp2", "  A", "    x"]
    # A plain dry run shows its differences task by task, and needs no list of them.
    assert report(record, obstacles) == ["cmp1", *first]


def test_tasks_with_the_same_cause_share_a_line() -> None:
    record = [{"host": "ctl1", "task": task, "not_looked_at": DOWN} for task in "ABCDEA"]
    assert report(record) == ["ctl1", f"  could not look: {DOWN} (A, B, C, 2 more)"]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ([], ""),
        ([{"host": "a", "items": ["x"]}], "1 difference from the inventory on 1 host. site.yml with the same"),
        ([{"host": "a", "items": ["x", "y"]}, {"host": "b", "items": ["x"]}], "3 differences from the inventory on 2"),
        ([{"host": "a", "needs_you": MASKED}, {"host": "a", "needs_you": MASKED}], "1 thing that needs you on 1 host."),
        (
            [{"host": host, "needs_you": MASKED} for host in "ab"] + [{"host": "a", "not_looked_at": DOWN}],
            "2 things that need you, 1 part that could not be looked at on 2 hosts.",
        ),
    ],
)
def test_the_verdict_counts(record: list[dict[str, Any]], expected: str) -> None:
    sentence = verdict([{"task": "Task", **entry} for entry in record])
    assert sentence.startswith(expected)
    assert bool(sentence) == bool(record)
    # site.yml corrects differences only.
    assert ("site.yml" in sentence) == any("items" in entry for entry in record)
