# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Decide what is to be done for each OSD of a host: pure functions of what the cluster and the host say.

Data are lost where an OSD is made on something that holds some, or where one that is gone is silently made anew. Both
are refused, with what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Nothing to do; to be made; to be made once more, after a run that was killed; its directory to be made from its data.
KEEP, MAKE, AGAIN, PRIME = "keep", "make", "again", "prime"


@dataclass
class Known:
    """What the cluster says of an OSD."""

    number: int
    up: bool
    # Whether it has never been up: it holds nothing.
    new: bool


@dataclass
class Local:
    """What the host has of an OSD."""

    # What is at the path: device() of the module utility data.
    device: Mapping[str, Any]
    # Whether an LVM volume on it has the tag of this OSD.
    volume: bool = False
    # Whether its directory is complete.
    ready: bool = False


class Refused(ValueError):
    """An OSD that nothing is done for until an operator has decided."""


def gone(path: str, known: Known, host: str) -> Refused:
    """Return why an OSD whose data is gone is not made anew."""
    return Refused(
        f"{path}: osd.{known.number} of {host} has been in the cluster, and its data are gone from here. It is not "
        "silently made anew: the disk may only be missing. Bring it back, or give its copies up, once the cluster has "
        f"them elsewhere (ceph osd safe-to-destroy osd.{known.number}): ceph osd purge osd.{known.number} "
        "--yes-i-really-mean-it, and run site.yml again"
    )


def decide_file(path: str, uuid: str, host: str, known: Known | None, local: Local) -> str:
    """Return what to do for an OSD in a file. Raises Refused."""
    found = local.device
    if found["kind"] == "block":
        raise Refused(f"{path} is a block device, and a file was to be made. Write its path without a size")
    if found["kind"] == "other":
        raise Refused(f"{path} is neither a file nor free to make one. Choose another path")
    if found["osd"] == uuid:
        if known is None:
            raise Refused(
                f"{path} holds the data of an OSD ({uuid}) that the cluster does not know: it has been removed, or the "
                "cluster is another one. Remove the file if nothing in it is needed"
            )
        if local.ready:
            return KEEP
        return AGAIN if known.new else PRIME
    if found["osd"]:
        raise Refused(
            f"{path} holds the data of another OSD ({found['osd']}). Remove the file if nothing in it is needed"
        )
    if found["holds"] and not (known and known.new):
        raise Refused(f"{path} holds data that are not of this OSD. Remove the file, or choose another path")
    if known and not known.new:
        raise gone(path, known, host)
    return AGAIN if known else MAKE


def decide_device(path: str, uuid: str, host: str, known: Known | None, local: Local) -> str:
    """Return what to do for an OSD on a block device. Raises Refused."""
    found = local.device
    if local.volume:
        if known is None:
            raise Refused(
                f"{path} holds the data of an OSD ({uuid}) that the cluster does not know: it has been removed, or the "
                f"cluster is another one. If nothing on it is needed: ceph-volume lvm zap --destroy {path}"
            )
        # A preparation that was killed left a volume, in which nothing has ever been stored.
        return AGAIN if known.new and not known.up else KEEP if local.ready else PRIME
    if known and not known.new:
        raise gone(path, known, host)
    if found["kind"] != "block":
        raise Refused(
            f"{path} is no block device on {host}. Write the path of an empty one, best below /dev/disk/by-id"
        )
    if found["mounts"]:
        raise Refused(f"{path} is in use: mounted at {', '.join(found['mounts'])}. Choose an empty device")
    if found["read_only"]:
        raise Refused(f"{path} can only be read. Choose another device")
    if found["osd"] or found["holds"]:
        what = f"an OSD ({found['osd']})" if found["osd"] else ", ".join(found["holds"])
        raise Refused(f"{path} is not empty: it holds {what}. If nothing on it is needed: wipefs --all {path}")
    return AGAIN if known else MAKE


def decide(osd: Mapping[str, Any], host: str, known: Known | None, local: Local) -> str:
    """Return what to do for an OSD. Raises Refused."""
    way = decide_file if osd["size"] else decide_device
    return way(osd["path"], osd["uuid"], host, known, local)
