# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""OSDs of a host: what the cluster and ceph-volume say, and the commands for block devices."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ceph_osds
import pytest
from ansible.module_utils.kilonova.storage import cluster, osds, sizes
from ansible.module_utils.kilonova.storage.osd_plan import AGAIN, MAKE, PRIME, Known

UUID = "7e0b6f52-5d2a-4f0e-9d1b-6f8c9f1c2d3e"
DISK = {"path": "/dev/sdb", "size": "", "uuid": UUID, "key": "k"}


@pytest.mark.parametrize(("text", "size"), [("20G", 20 * 2**30), ("512 MiB", 512 * 2**20), ("1T", 2**40)])
def test_sizes(text: str, size: int) -> None:
    assert sizes.bytes_of(text) == size


@pytest.mark.parametrize("text", ["20", "G", "20GB", "-1G", ""])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        sizes.bytes_of(text)


def test_an_osd_that_has_never_been_up_is_known_as_new() -> None:
    dump = {
        "osds": [
            {"osd": 0, "uuid": "a", "up": 1, "state": ["exists", "up"]},
            {"osd": 1, "uuid": "b", "up": 0, "state": ["exists", "new"]},
        ]
    }
    assert osds.known_osds(dump) == {"a": Known(0, True, False), "b": Known(1, False, True)}


def test_volumes_are_known_by_their_tags() -> None:
    listed = {"0": [{"type": "block", "devices": ["/dev/sdb"], "tags": {"ceph.osd_fsid": UUID}}]}
    assert osds.volumes(json.dumps(listed)) == {UUID}
    assert osds.volumes("") == osds.volumes("{}") == set()


def test_a_dry_run_before_ceph_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_module: Callable[..., dict[str, Any]]
) -> None:
    monkeypatch.setattr(cluster, "CONFIGURATION", str(tmp_path / "ceph.conf"))
    monkeypatch.setattr(osds, "DIRECTORIES", str(tmp_path))
    one = {"path": str(tmp_path / "osd1"), "size": "20G", "uuid": UUID, "key": "a secret"}
    found = run_module(ceph_osds, check=True, host="osd1", osds=[one])
    assert found["changes"] == [f"make an OSD on {tmp_path}/osd1"]
    text = tmp_path / "text"
    text.write_text("not an OSD")
    found = run_module(ceph_osds, check=True, host="osd1", osds=[{**one, "path": str(text)}])
    assert "holds data that are not of this OSD" in found["needs_you"][0]
    assert not found["changed"]


class Monitors:
    """Records what the monitors are asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def command(self, prefix: str, data: bytes = b"", **arguments: Any) -> Any:
        self.asked.append((prefix, arguments))
        return {"osds": []}

    raw = command


@pytest.mark.parametrize(
    ("decision", "volume", "asked", "called"),
    [
        (MAKE, False, [], ["lvm create --bluestore --data /dev/sdb --osd-fsid " + UUID]),
        (AGAIN, False, ["osd purge-new"], ["lvm create --bluestore --data /dev/sdb --osd-fsid " + UUID]),
        (
            AGAIN,
            True,
            ["osd purge-new"],
            ["lvm zap --destroy /dev/sdb", "lvm create --bluestore --data /dev/sdb --osd-fsid " + UUID],
        ),
        (PRIME, True, [], ["lvm activate --bluestore 3 " + UUID]),
    ],
)
def test_commands_for_a_block_device(
    decision: str, volume: bool, asked: list[str], called: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = osds.Host.__new__(osds.Host)
    monitors = Monitors()
    commands: list[str] = []
    host.cluster, host.volumes = monitors, {UUID} if volume else set()  # type: ignore[assignment]
    monkeypatch.setattr(host, "call", lambda *command: commands.append(" ".join(command[1:])))
    host.apply_device(DISK, decision, None if decision == MAKE else Known(3, False, decision == AGAIN))
    assert [prefix for prefix, _ in monitors.asked] == asked
    assert commands == called
