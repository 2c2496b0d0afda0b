# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of where the disks of guests and the images are: nothing that is elsewhere may get out of reach."""

from __future__ import annotations

from collections.abc import Iterable

from ansible.module_utils.kilonova.preflight.messages import Facts, message

SHOWN = 5
HOW = "docs/operate/storage.md says how"


def _listed(guests: list[str]) -> str:
    more = f" and {len(guests) - SHOWN} more" if len(guests) > SHOWN else ""
    return ", ".join(guests[:SHOWN]) + more


def check_guest_disks(facts: Facts, wanted: str, ceph: bool, groups: Iterable[str]) -> list[str]:
    """Report guests that nova-compute could not start any more."""
    if "compute" not in groups:
        return []
    variable = "nova_compute_disks"
    if wanted == "ceph" and not ceph:
        why = "the cloud has no Ceph: neither hosts in the group storage nor ceph_existing"
        return [message(variable, wanted, why, "Leave it out, or add one of them")]
    other = "local" if wanted == "ceph" else "ceph"
    if not (guests := (facts.get("guest_disks") or {}).get(other)):
        return []
    where = {"local": "as files on this host", "ceph": "in Ceph"}[other]
    why = (
        f"guests of this host have their disks {where} ({_listed(guests)}), and nova-compute would look for them "
        "elsewhere and could not start them"
    )
    keep = "" if ceph or other == "local" else "Keep the group storage, or ceph_existing. "
    return [message(variable, wanted, why, f"{keep}Write {other} for this host until they are moved ({HOW})")]


def check_images(facts: Facts, path: str, kept: bool, ceph: bool, groups: Iterable[str]) -> list[str]:
    """Report images that Glance could not read any more."""
    images = (facts.get("files_in") or {}).get(path)
    if not ceph or kept or not images or "controller" not in groups:
        return []
    why = f"{path} holds {images} images from before Ceph, and Glance could not read them any more"
    return [message("glance_file_store_kept", kept, why, f"Write true until they are moved ({HOW})")]
