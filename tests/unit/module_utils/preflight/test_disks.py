# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Guests and images that another place of disks would put out of reach."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.kilonova.preflight.disks import check_guest_disks, check_images

from .sample import host

GUESTS = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(7)]


def disks(local: list[str] | None = None, ceph: list[str] | None = None) -> dict[str, Any]:
    return host(guest_disks={"local": local or [], "ceph": ceph or []})


def test_disks_where_they_are_wanted() -> None:
    assert check_guest_disks(host(), "local", False, ["compute"]) == []
    assert check_guest_disks(disks(local=GUESTS), "local", True, ["compute"]) == []
    assert check_guest_disks(disks(ceph=GUESTS), "ceph", True, ["compute"]) == []
    assert check_guest_disks(disks(local=GUESTS), "ceph", True, ["controller"]) == []


def test_files_of_a_compute_that_is_to_use_ceph() -> None:
    (found,) = check_guest_disks(disks(local=GUESTS), "ceph", True, ["compute"])
    assert found.startswith("nova_compute_disks = 'ceph': ") and "as files on this host" in found
    assert GUESTS[0] in found and GUESTS[5] not in found and "and 2 more" in found
    assert "Write local for this host until they are moved (docs/operate/storage.md" in found


@pytest.mark.parametrize(("ceph", "keeps"), [(False, True), (True, False)])
def test_ceph_that_is_taken_away_from_guests(ceph: bool, keeps: bool) -> None:
    (found,) = check_guest_disks(disks(ceph=GUESTS[:1]), "local", ceph, ["compute"])
    assert "disks in Ceph" in found and "Write ceph for this host" in found
    assert ("Keep the group storage" in found) is keeps


def test_disks_in_a_ceph_that_is_not_there() -> None:
    (found,) = check_guest_disks(host(), "ceph", False, ["compute"])
    assert "the cloud has no Ceph" in found


def test_images_out_of_reach() -> None:
    facts = host(files_in={"/images": 3})
    (found,) = check_images(facts, "/images", False, True, ["controller"])
    assert found.startswith("glance_file_store_kept = False: /images holds 3 images") and "Write true" in found
    assert check_images(facts, "/images", True, True, ["controller"]) == []
    assert check_images(facts, "/images", False, False, ["controller"]) == []
    assert check_images(facts, "/images", False, True, ["compute"]) == []
    assert check_images(facts, "/others", False, True, ["controller"]) == []
