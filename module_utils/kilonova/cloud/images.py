# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Converge images."""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.kilonova.cloud import plan
from ansible.module_utils.kilonova.cloud.api import CloudError
from ansible.module_utils.kilonova.cloud.converge import PREDICTED, Convergence

JSON_PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}


def converge_images(work: Convergence, wanted: list[dict[str, Any]]) -> None:
    for one in wanted:
        work.keep("image", one["name"], PREDICTED)
        with work.resolving():
            _converge(work, one)


def _converge(work: Convergence, one: dict[str, Any]) -> None:
    found = work.api.listing("image", "/images", "images", name=one["name"], owner=work.project_id)
    for broken in [image for image in found if image["status"] in ("queued", "saving", "killed")]:
        found.remove(broken)
        work.record("image", broken["id"], "removed, its upload was not finished", one["name"], None)
        if not work.check_mode:
            work.api.delete("image", f"/images/{broken['id']}")
    current = plan.the_one("image", one["name"], found)
    if current is not None:
        work.keep("image", one["name"], current["id"])
    reason = _upload_reason(work, one, current)
    if reason:
        _upload(work, one, current, reason)
    elif current is not None:
        _update(work, one, current)


def _upload_reason(work: Convergence, one: dict[str, Any], current: dict[str, Any] | None) -> str:
    """Return why the file has to be uploaded; empty when the image holds it already."""
    if not work.check_mode or os.path.exists(one["path"]):
        _require_file(one)
    elif current is not None:
        work.warnings.append(f"{one['path']} does not exist yet, so check mode cannot compare it with the image.")
        return ""
    return "it does not exist" if current is None else plan.image_content_differs(current, one)


def _require_file(one: dict[str, Any]) -> None:
    if not os.path.isfile(one["path"]):
        raise plan.PlanError(f"the file {one['path']} of the image '{one['name']}' does not exist on this host.")
    if one["sha256"] and plan.file_digest(one["path"], "sha256") != one["sha256"].lower():
        raise plan.PlanError(
            f"{one['path']} does not have the sha256 {one['sha256']} that is wanted for the image '{one['name']}'. "
            "The file is damaged or a different one; get it again or correct the sha256."
        )


def _update(work: Convergence, one: dict[str, Any], current: dict[str, Any]) -> None:
    changes = plan.image_difference(current, one)
    if not changes:
        return
    work.record("image", one["name"], "changed", changes.before, changes.after)
    if not work.check_mode:
        patch = plan.image_patch(current, changes)
        work.api.request("image", "PATCH", f"/images/{current['id']}", json=patch, headers=JSON_PATCH)


def _upload(work: Convergence, one: dict[str, Any], replaced: dict[str, Any] | None, reason: str) -> None:
    old = {"id": replaced["id"], "hash": replaced.get("os_hash_value")} if replaced else None
    work.record("image", one["name"], f"uploaded ({reason})", old, {"path": one["path"]})
    work.keep("image", one["name"], PREDICTED)
    if work.check_mode:
        return
    names = ("name", "disk_format", "container_format", "visibility", "min_disk", "min_ram")
    body = {name: one[name] for name in names} | {k: str(v) for k, v in (one["properties"] or {}).items()}
    image = work.api.post("image", "/images", body)
    path = f"/images/{image['id']}"
    try:
        with open(one["path"], "rb") as stream:
            work.api.request(
                "image", "PUT", f"{path}/file", data=stream, headers={"Content-Type": "application/octet-stream"}
            )
        stored = work.api.get("image", path)
        if stored["status"] != "active" or plan.image_content_differs(stored, one):
            raise CloudError(
                "Glance",
                f"the image '{one['name']}' is {stored['status']} after its upload, with the "
                f"{stored.get('os_hash_algo')} {stored.get('os_hash_value')}, which is not that of {one['path']}.",
            )
    except CloudError:
        work.api.delete("image", path)
        raise
    work.keep("image", one["name"], image["id"])
    if replaced:
        _retire(work, replaced)


def _retire(work: Convergence, image: dict[str, Any]) -> None:
    """Delete a replaced image, or hide it while servers use it."""
    users = work.api.listing("compute", "/servers", "servers", image=image["id"], all_tenants="true", limit=1)
    if not users and not image.get("protected"):
        work.api.delete("image", f"/images/{image['id']}")
        return
    patch = [{"op": "replace" if "os_hidden" in image else "add", "path": "/os_hidden", "value": True}]
    work.api.request("image", "PATCH", f"/images/{image['id']}", json=patch, headers=JSON_PATCH)
    work.warnings.append(f"The replaced image {image['id']} is hidden, not deleted: servers were created from it.")
