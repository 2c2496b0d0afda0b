# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Converge flavors."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.kilonova.cloud import plan
from ansible.module_utils.kilonova.cloud.api import CloudApi
from ansible.module_utils.kilonova.cloud.converge import PREDICTED, Convergence


def converge_flavors(work: Convergence, wanted: list[dict[str, Any]]) -> None:
    existing = work.api.listing("compute", "/flavors/detail", "flavors", is_public="none") if wanted else []
    for one in wanted:
        work.keep("flavor", one["name"], one["id"] or PREDICTED)
        with work.resolving():
            current = plan.find_flavor(existing, one)
            if current is None:
                _create(work, one)
                continue
            work.keep("flavor", one["name"], current["id"])
            changes = plan.flavor_difference(current, one)
            if changes:
                work.record("flavor", one["name"], "extra specs changed", changes.before, changes.after)
                if not work.check_mode:
                    before, after = changes.before["extra_specs"], changes.after["extra_specs"]
                    _set_extra_specs(work.api, current["id"], before, after)


def _create(work: Convergence, one: dict[str, Any]) -> None:
    work.record("flavor", one["name"], "created", None, one)
    if work.check_mode:
        return
    body = {key: one[key] for key in ("name", "id", "vcpus", "ram", "disk", "swap")}
    body |= {"OS-FLV-EXT-DATA:ephemeral": one["ephemeral"], "os-flavor-access:is_public": one["public"]}
    flavor = work.api.post("compute", "/flavors", {"flavor": body})["flavor"]
    work.keep("flavor", one["name"], flavor["id"])
    _set_extra_specs(work.api, flavor["id"], {}, one["extra_specs"] or {})


def _set_extra_specs(api: CloudApi, flavor_id: str, current: dict[str, str], wanted: dict[str, str]) -> None:
    path = f"/flavors/{flavor_id}/os-extra_specs"
    for name in set(current) - set(wanted):
        api.delete("compute", f"{path}/{name}")
    if wanted and current != wanted:
        api.post("compute", path, {"extra_specs": wanted})
