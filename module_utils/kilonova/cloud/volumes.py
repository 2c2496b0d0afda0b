# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Converge types of volumes and the default quotas of Cinder."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.kilonova.cloud import plan
from ansible.module_utils.kilonova.cloud.api import CloudApi
from ansible.module_utils.kilonova.cloud.converge import PREDICTED, Convergence

CINDER = "block_storage"
# The class of projects without quotas of their own.
DEFAULTS = "/os-quota-class-sets/default"
TYPE_FIELDS = ("description", "public", "extra_specs")


def is_missing(work: Convergence) -> bool:
    """Return whether a run would register Cinder first: in check mode, all of it is then created."""
    return work.check_mode and not work.api.offers(CINDER)


def converge_volume_types(work: Convergence, wanted: list[dict[str, Any]]) -> None:
    # Without is_public, Cinder leaves private types out.
    existing = (
        work.api.listing(CINDER, "/types", "volume_types", is_public="None") if wanted and not is_missing(work) else []
    )
    for one in wanted:
        work.keep("volume type", one["name"], PREDICTED)
        with work.resolving():
            found = [volume_type for volume_type in existing if volume_type["name"] == one["name"]]
            current = plan.the_one("volume type", one["name"], found)
            if current is None:
                _create(work, one)
                continue
            work.keep("volume type", one["name"], current["id"])
            changes = plan.difference(type_fields(current), {name: one[name] for name in TYPE_FIELDS})
            if changes:
                action = f"{', '.join(name.replace('_', ' ') for name in changes.after)} changed"
                work.record("volume type", one["name"], action, changes.before, changes.after)
                if not work.check_mode:
                    _update(work.api, current["id"], changes)


def type_fields(volume_type: dict[str, Any]) -> dict[str, Any]:
    """Translate Cinder's type to the options of cloud_resources."""
    return {
        "description": volume_type.get("description") or "",
        "public": volume_type.get("is_public", True),
        "extra_specs": volume_type.get("extra_specs") or {},
    }


def _create(work: Convergence, one: dict[str, Any]) -> None:
    work.record("volume type", one["name"], "created", None, one)
    if work.check_mode:
        return
    body = {
        "name": one["name"],
        "description": one["description"],
        "os-volume-type-access:is_public": one["public"],
        "extra_specs": one["extra_specs"] or {},
    }
    created = work.api.post(CINDER, "/types", {"volume_type": body})["volume_type"]
    work.keep("volume type", one["name"], created["id"])


def _update(api: CloudApi, type_id: str, changes: plan.Difference) -> None:
    names = {"description": "description", "public": "is_public"}
    body = {names[name]: value for name, value in changes.after.items() if name in names}
    if body:
        api.put(CINDER, f"/types/{type_id}", {"volume_type": body})
    if "extra_specs" in changes.after:
        before, after = changes.before["extra_specs"], changes.after["extra_specs"]
        for name in set(before) - set(after):
            api.delete(CINDER, f"/types/{type_id}/extra_specs/{name}")
        if after:
            api.post(CINDER, f"/types/{type_id}/extra_specs", {"extra_specs": after})


def converge_volume_quotas(work: Convergence, wanted: dict[str, int]) -> None:
    """Set the limits of projects without quotas of their own."""
    if not wanted:
        return
    with work.resolving():
        current = None if is_missing(work) else work.api.get(CINDER, DEFAULTS)["quota_class_set"]
        if current is not None and (unknown := sorted(set(wanted) - set(current))):
            known = ", ".join(sorted(set(current) - {"id"}))
            raise plan.PlanError(f"Cinder has no quota of {', '.join(unknown)}. It has: {known}.")
        changes = plan.difference(current or {}, wanted)
        if changes:
            text = f"{', '.join(changes.after)} changed"
            work.record("volume quotas", "default", text, changes.before, changes.after)
            if not work.check_mode:
                work.api.put(CINDER, DEFAULTS, {"quota_class_set": changes.after})
