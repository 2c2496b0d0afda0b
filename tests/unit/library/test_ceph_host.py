# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A storage host leaves for a while or for good only where nothing is lost by it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import ceph_host
import pytest
from ansible.module_utils.kilonova.storage import host
from ansible.module_utils.kilonova.storage.cluster import CephError
from ansible.module_utils.kilonova.storage.host import State, monitors_refuse, removal_refuses

THREE = ["osd1", "osd2", "osd3"]


@pytest.mark.parametrize(
    ("monitors", "quorum", "for_good", "refused"),
    [
        (THREE, THREE, False, False),
        (THREE, ["osd1", "osd3"], False, True),
        # Two monitors that both live are more than half of two.
        (THREE, THREE, True, False),
        (THREE, ["osd1", "osd3"], True, True),
        (["osd3"], ["osd3"], False, True),
        (["osd1"], ["osd1"], True, False),
    ],
)
def test_monitors_keep_their_majority(monitors: list[str], quorum: list[str], for_good: bool, refused: bool) -> None:
    state = State(monitors=monitors, quorum=quorum)
    assert bool(monitors_refuse(state, "osd3", for_good)) is refused


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"osds": []}, ""),
        ({"other_hosts": 2}, "Pool images keeps 3 copies on different hosts, and without osd3 there are 2 hosts"),
        ({"copies": {}}, "not spread over hosts"),
        ({"used": 90}, "it would be more than 85% full"),
    ],
)
def test_a_removal_leaves_all_copies(changes: dict[str, Any], why: str) -> None:
    given = {"osds": [3], "other_hosts": 3, "copies": {"images": 3}, "used": 50, "left": 100, **changes}
    text = removal_refuses(State(**given), "osd3")
    assert why in text and bool(text) is bool(why)


class Monitors:
    """Three storage hosts with one OSD each, and a fourth."""

    def __init__(self) -> None:
        self.done: list[tuple[str, dict[str, Any]]] = []
        self.safe, self.stoppable, self.noout = True, True, False
        # How often the placement groups are still changing places.
        self.unknown = 0

    def command(self, prefix: str, **arguments: Any) -> Any:
        if prefix == "osd ok-to-stop" and not self.stoppable:
            raise CephError("7 PGs would become offline", errno.EBUSY)
        if prefix == "osd safe-to-destroy" and self.unknown:
            self.unknown -= 1
            raise CephError("1 pgs have unknown state; cannot draw any conclusions", errno.EAGAIN)
        hosts = [f"osd{number}" for number in range(1, 5)]
        tree = [{"id": -1 - i, "name": name, "type": "host", "children": [i]} for i, name in enumerate(hosts)]
        tree += [{"id": i, "name": f"osd.{i}", "type": "osd", "status": "up", "reweight": 1} for i in range(4)]
        return {
            "osd tree": {"nodes": tree, "stray": []},
            "osd dump": {
                "pools": [{"pool_name": "images", "size": 3, "crush_rule": 1}],
                "crush_node_flags": {"osd3": ["noout"]} if self.noout else {},
            },
            "quorum_status": {"monmap": {"mons": [{"name": name} for name in THREE]}, "quorum_names": THREE},
            "osd df": {"nodes": [{"id": i, "kb": 100, "kb_used": 10} for i in range(4)]},
            "osd crush rule dump": [{"rule_id": 1, "steps": [{"op": "chooseleaf_firstn", "type": "host"}]}],
            "osd ok-to-stop": {},
            "osd safe-to-destroy": {"safe_to_destroy": [2] if self.safe else [], "active": []},
            "health": {"checks": {}},
        }[prefix]

    def raw(self, prefix: str, **arguments: Any) -> bytes:
        self.done.append((prefix, arguments))
        return b""


@pytest.fixture
def monitors(monkeypatch: pytest.MonkeyPatch) -> Monitors:
    made = Monitors()
    monkeypatch.setattr(host, "reach", lambda timeout: made)
    return made


Run = Callable[..., dict[str, Any]]


def test_a_host_may_be_down(monitors: Monitors, run_module: Run) -> None:
    found = run_module(ceph_host, name="osd3", monitor="osd3", state="maintenance")
    assert found["changed"] and monitors.done == [("osd set-group", {"flags": "noout", "who": ["osd3"]})]
    monitors.noout = True
    assert not run_module(ceph_host, name="osd3", monitor="osd3", state="maintenance")["changed"]


def test_a_host_without_which_data_could_not_be_read(monitors: Monitors, run_module: Run) -> None:
    monitors.stoppable = False
    found = run_module(ceph_host, name="osd3", monitor="osd3", state="maintenance")
    assert found["failed"] and "7 PGs would become offline" in found["msg"] and monitors.done == []


def test_a_host_is_back(monitors: Monitors, run_module: Run) -> None:
    assert not run_module(ceph_host, name="osd3", monitor="osd3", state="in_service")["changed"]
    monitors.noout = True
    assert run_module(ceph_host, name="osd3", monitor="osd3", state="in_service")["changed"]
    assert monitors.done == [("osd unset-group", {"flags": "noout", "who": ["osd3"]})]


def test_a_host_is_emptied_and_removed(monitors: Monitors, run_module: Run) -> None:
    found = run_module(ceph_host, name="osd3", monitor="osd3", state="drained")
    assert found["changes"] == ["empty osd.2"] and found["osds"] == [2]
    run_module(ceph_host, name="osd3", monitor="osd3", state="absent")
    assert [prefix for prefix, _ in monitors.done] == [
        "osd out",
        "osd purge-actual",
        "osd crush remove",
        "mon remove",
        "auth rm",
    ]


@pytest.mark.parametrize("state", ["drained", "absent"])
def test_placement_groups_are_waited_for(
    state: str, monitors: Monitors, run_module: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "POLL_SECONDS", 0)
    monitors.unknown = 2
    assert run_module(ceph_host, name="osd3", monitor="osd3", state=state)["changed"]
    monitors.unknown, monitors.done = 5, []
    found = run_module(ceph_host, name="osd3", monitor="osd3", state=state, timeout=0)
    assert found["failed"] and "cannot draw any conclusions" in found["msg"]


def test_a_host_that_keeps_the_last_copy_stays(monitors: Monitors, run_module: Run) -> None:
    monitors.safe = False
    found = run_module(ceph_host, name="osd3", monitor="osd3", state="drained", timeout=0)
    assert found["failed"] and "osd.2 hold what is not elsewhere yet" in found["msg"]
    monitors.done.clear()
    found = run_module(ceph_host, name="osd3", monitor="osd3", state="absent", timeout=0)
    assert found["failed"] and monitors.done == []


def test_a_dry_run_waits_for_nothing(monitors: Monitors, run_module: Run) -> None:
    monitors.safe = False
    assert run_module(ceph_host, check=True, name="osd3", monitor="osd3", state="drained")["changed"]
    assert monitors.done == []
