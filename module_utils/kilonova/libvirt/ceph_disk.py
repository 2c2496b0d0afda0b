# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ask Ceph about the disk of a guest, as the user that Nova is there."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.kilonova.storage import rbd

COPY = "none: a copy. The image is not raw, or Glance does not tell where it is (show_image_direct_url)"


def describe(source: str, user: str) -> dict[str, Any]:
    """Return what Ceph says of an image POOL/NAME: parent (POOL/NAME, empty for none), or problem."""
    try:
        parent = rbd.image(source, user).get("parent") or {}
    except rbd.RbdError as error:
        return {"problem": str(error)}
    return {"parent": f"{parent['pool']}/{parent['image']}" if parent else ""}


def compare(disk: dict[str, Any], pool: str, parent_pool: str) -> list[tuple[str, str, str]]:
    """Return what differs of a disk that is to be in a pool: (what, expected, found).

    parent_pool: the pool of the image that the disk is to be a clone of. Empty where it need not be one.
    """
    what = f"disk {disk['target']}"
    place = disk["source"] if disk["protocol"] == "rbd" else ""
    if place.partition("/")[0] != pool:
        return [(f"place of {what}", f"the pool {pool} of Ceph", disk["source"] or "none")]
    if problem := disk["ceph"].get("problem"):
        return [(f"{what} in Ceph", "an answer", problem)]
    parent = disk["ceph"]["parent"]
    if parent_pool and parent.partition("/")[0] != parent_pool:
        return [(f"parent of {what}", f"an image in the pool {parent_pool}", parent or COPY)]
    return []
