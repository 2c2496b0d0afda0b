# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Find images whose data cannot be read, without waiting for a store that does not answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from ansible.module_utils.kilonova.cloud.api import CloudApi, CloudError
from ansible.module_utils.kilonova.storage import rbd

# Where the data of an image in Ceph are, and who may read them on controllers.
IN_CEPH = re.compile(r"rbd://[^/]+/(?P<pool>[^/]+)/(?P<image>[^/]+)/[^/]+")
GLANCE_USER = "glance"
STORE_LAYER = "Ceph"
SECONDS = 30


def image_data_faults(api: CloudApi, images: list[dict[str, Any]], names: Sequence[str]) -> list[tuple[str, str, bool]]:
    """Return the layer, the message and whether it may pass of each problem. Asks for one byte of each active image."""
    found: dict[str, tuple[str, bool]] = {}
    for one in images:
        if one["name"] not in names or one["status"] != "active":
            continue
        try:
            if why := _fault(api, one):
                text = (
                    f"the data of the image '{one['name']}' ({one['id']}) cannot be read: {why}; openstack image "
                    f"delete {one['id']}, then site.yml, creates it again"
                )
                found[text] = ("Glance", False)
        except rbd.Silence as error:
            # The same for all images.
            found[str(error)] = (STORE_LAYER, True)
    return [(layer, text, passes) for text, (layer, passes) in found.items()]


def _fault(api: CloudApi, one: dict[str, Any]) -> str:
    """Return why the data of an image cannot be read. Raises Silence where its store does not answer."""
    in_ceph = "rbd" in (one.get("stores") or "").split(",")
    place = IN_CEPH.fullmatch(one.get("direct_url") or "") if in_ceph else None
    if place:
        # Glance would wait for a store that does not answer, and serve nobody else until then.
        try:
            rbd.image(f"{place['pool']}/{place['image']}", GLANCE_USER)
        except rbd.Silence:
            raise
        except rbd.RbdError as error:
            return str(error)
    try:
        # Glance reads no part of an image in Ceph, but all of it, until the connection ends.
        part = {} if in_ceph else {"headers": {"Range": "bytes=0-0"}}
        answer = api.request("image", "GET", f"/images/{one['id']}/file", stream=True, timeout=SECONDS, **part)
        there = answer.status_code != HTTPStatus.NO_CONTENT and (part or next(answer.iter_content(1), b""))
        answer.close()
    except CloudError as error:
        return str(error)
    return "" if there else "Glance has none"
