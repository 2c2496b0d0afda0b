# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What of a Ceph cluster is on a host, and what is on block devices and files that OSDs are to be made of."""

from __future__ import annotations

import glob
import json
import os
import re
import stat
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

# What a program that was killed left beside the place that it was making; nothing has run from it.
ASIDE = ".kilonova-"
PLACES = ("/var/lib/ceph/mon", "/var/lib/ceph/osd")
# The label of BlueStore, with the UUID of the OSD, at the beginning of the device.
LABEL = re.compile(rb"^bluestore block device\n([0-9a-f-]{36})\n")


def label(path: str) -> str:
    """Return the UUID of the OSD whose data a device or file holds; empty where there is none."""
    try:
        with open(path, "rb") as stream:
            match = LABEL.match(stream.read(64))
    except OSError:
        return ""
    return match.group(1).decode() if match else ""


def ceph_data(devices: Sequence[str] = (), root: str = "") -> list[str]:
    """Return what of a cluster is on this host: stores of monitors, directories of OSDs, devices of OSDs."""
    found = [path for place in PLACES for path in sorted(glob.glob(f"{root}{place}/*")) if os.listdir(path)]
    if not devices:
        return found
    tags = _lines(["lvs", "--noheadings", "--options", "lv_path,lv_tags"])
    found += [f"{line.split()[0]} (a volume of an OSD)" for line in tags.splitlines() if "ceph.osd_fsid=" in line]
    return [*found, *(path for path in devices if label(path))]


def _lines(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _mounts(node: Mapping[str, Any]) -> list[str]:
    return [
        *(point for point in node.get("mountpoints") or [] if point),
        *(point for child in node.get("children") or [] for point in _mounts(child)),
    ]


def block_device(path: str) -> dict[str, Any]:
    """Return what lsblk, blkid and wipefs know of a block device."""
    listed = _lines(["lsblk", "--json", "--bytes", "--output", "NAME,SIZE,TYPE,MOUNTPOINTS,RO", path])
    nodes = json.loads(listed or "{}").get("blockdevices") or [{}]
    wiped = _lines(["wipefs", "--noheadings", "--output", "TYPE", path])
    probed = _lines(["blkid", "--probe", "--output", "value", "--match-tag", "TYPE", path])
    children = [f"{child.get('type')} {child.get('name')}" for child in nodes[0].get("children") or []]
    signatures = [*dict.fromkeys(line.strip() for line in (wiped + probed).splitlines() if line.strip())]
    return {
        "size_mib": int(nodes[0].get("size") or 0) // 2**20,
        "read_only": bool(nodes[0].get("ro")),
        "mounts": _mounts(nodes[0]),
        "holds": [*signatures, *children],
    }


def volume(path: str) -> str:
    """Return the UUID of the OSD that ceph-volume has made on a block device, from the tags of its volume."""
    match = re.search(r"ceph\.osd_fsid=([0-9a-f-]{36})", _lines(["pvs", "--noheadings", "--options", "lv_tags", path]))
    return match.group(1) if match else ""


def device(path: str) -> dict[str, Any]:
    """Return what is at the path of a device or file."""
    found: dict[str, Any] = {"kind": "", "real": os.path.realpath(path), "osd": "", "size_mib": 0, "read_only": False}
    found |= {"mounts": [], "holds": []}
    try:
        status = os.stat(path)
    except OSError:
        return found
    if stat.S_ISBLK(status.st_mode):
        return {**found, "kind": "block", **block_device(path), "osd": label(path) or volume(path)}
    if stat.S_ISREG(status.st_mode):
        holds = "" if status.st_blocks == 0 else "data"
        return {
            **found,
            **{
                "kind": "file",
                "size_mib": status.st_size // 2**20,
                "holds": [holds] if holds else [],
                "osd": label(path),
            },
        }
    return {**found, "kind": "other"}
