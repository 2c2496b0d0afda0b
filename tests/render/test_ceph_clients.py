# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Glance and Nova in a cloud with Ceph, and that a cloud without it has nothing of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from plugins.filter.services import credentials_of
from tests.render import rendering
from tests.render.test_preflight import problems
from tests.render.test_tls import files, ini

HOST = "cloud1"
KEYRINGS = {"glance": "/etc/ceph/ceph.client.glance.keyring", "nova": "/etc/ceph/ceph.client.nova.keyring"}


def with_changes(**changes: Any) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The maps of Glance and nova-compute, and their files, with other values of variables."""
    sample = rendering.load("storage").changed(**changes)
    maps = {one["name"]: one for one in sample.services(HOST) if one["name"] in ("glance", "nova_compute")}
    texts = [file for one in maps.values() for file in sample.render(HOST, one)]
    return maps, {file.dest: file.text for file in texts if file.text is not None}


@pytest.fixture(scope="module")
def storage() -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    return with_changes()


def test_images_are_in_ceph_and_become_raw(storage: tuple[Any, dict[str, str]]) -> None:
    parsed = ini(storage[1]["/etc/glance/glance-api.conf"])
    assert parsed["DEFAULT"]["enabled_backends"] == "rbd:rbd"
    assert parsed["glance_store"]["default_backend"] == "rbd"
    assert {name: value for name, value in parsed["rbd"].items() if name.startswith("rbd_")} == {
        "rbd_store_pool": "images",
        "rbd_store_user": "glance",
        "rbd_store_ceph_conf": "/etc/ceph/ceph.conf",
        "rbd_thin_provisioning": "true",
    }
    assert parsed["image_import_opts"]["image_import_plugins"] == "['image_conversion']"
    assert parsed["image_conversion"]["output_format"] == "raw"
    assert "file" not in parsed


def test_only_the_place_of_an_image_is_shown_and_nobody_sets_it(storage: tuple[Any, dict[str, str]]) -> None:
    text = storage[1]["/etc/glance/glance-api.conf"]
    assert re.search(r"^show_image_direct_url = true$", text, re.M)
    assert "show_multiple_locations =" not in text
    policies = yaml.safe_load(storage[1]["/etc/glance/policy.d/kilonova.yaml"])
    assert set(policies) == {f"{verb}_image_location" for verb in ("add", "delete", "fetch", "set")}
    assert set(policies.values()) == {"rule:context_is_admin"}


def test_images_from_before_stay_readable() -> None:
    maps, texts = with_changes(glance_file_store_kept=True)
    parsed = ini(texts["/etc/glance/glance-api.conf"])
    assert parsed["DEFAULT"]["enabled_backends"] == "rbd:rbd,file:file"
    assert parsed["glance_store"]["default_backend"] == "rbd"
    assert parsed["file"]["filesystem_store_datadir"] == "/var/lib/glance/images"
    assert "/var/lib/glance/images" in [file["dest"] for file in maps["glance"]["files"]]


def test_disks_are_in_ceph(storage: tuple[dict[str, dict[str, Any]], dict[str, str]]) -> None:
    maps, texts = storage
    section = ini(texts["/etc/nova/nova-compute.conf"])["libvirt"]
    (check,) = [one["args"] for one in maps["nova_compute"]["checks"] if one["module"] == "libvirt_secrets"]
    secrets = {one["name"]: one for one in check["secrets"]}
    assert set(secrets) == {"client.nova", "client.cinder"}
    assert {name: section[name] for name in section if "rbd" in name or "disk" in name} | {
        "images_type": section["images_type"]
    } == {
        "images_type": "rbd",
        "images_rbd_pool": "vms",
        "images_rbd_ceph_conf": "/etc/ceph/ceph.conf",
        "rbd_user": "nova",
        "rbd_secret_uuid": secrets["client.nova"]["uuid"],
        "disk_cachemodes": "network=writeback",
        "hw_disk_discard": "unmap",
    }
    assert f"\tkey = {secrets['client.nova']['value']}\n" in texts[KEYRINGS["nova"]]
    assert len({one["uuid"] for one in secrets.values()}) == len({one["value"] for one in secrets.values()}) == 2


def test_a_compute_that_keeps_its_disks_opens_volumes() -> None:
    maps, texts = with_changes(nova_compute_disks="local")
    section = ini(texts["/etc/nova/nova-compute.conf"])["libvirt"]
    assert "images_type" not in section and section["disk_cachemodes"] == "network=writeback"
    assert KEYRINGS["nova"] not in texts
    assert [one["state"] for one in maps["nova_compute"]["files"] if one["dest"] == KEYRINGS["nova"]] == ["absent"]
    assert "libvirt_secrets" in [one["module"] for one in maps["nova_compute"]["checks"]]


def test_keys_are_for_the_service_that_uses_them(storage: tuple[dict[str, dict[str, Any]], dict[str, str]]) -> None:
    maps, texts = storage
    for service, name in (("glance", "glance"), ("nova_compute", "nova")):
        (file,) = [one for one in maps[service]["files"] if one["dest"] == KEYRINGS[name]]
        assert (file["group"], file["mode"]) == (name, "0640")
        assert re.fullmatch(rf"\[client\.{name}\]\n\tkey = \S{{40}}\n", texts[KEYRINGS[name]])
    # A removed compute forgets it.
    assert {"dest": KEYRINGS["nova"], "state": "absent"} in credentials_of(maps["nova_compute"])


def test_a_new_key_restarts_who_reads_it(storage: tuple[dict[str, dict[str, Any]], dict[str, str]]) -> None:
    for service, unit, name in (("glance", "glance-api", "glance"), ("nova_compute", "nova-compute", "nova")):
        (reads,) = [one["reads"] for one in storage[0][service]["units"] if one["name"] == f"{unit}.service"]
        assert KEYRINGS[name] in reads


@pytest.mark.parametrize("inventory", ["all_in_one", "multihost"])
def test_a_cloud_without_ceph_has_nothing_of_it(inventory: str) -> None:
    sample = rendering.load(inventory)
    for host in sample.hosts():
        for dest, text in files(sample, host).items():
            assert not re.search(r"\brbd\b|/etc/ceph|direct_url|disk_cachemodes", text), f"{host}:{dest}"
        for service in sample.services(host):
            assert not re.search(r"rbd|rados|ceph", " ".join(service.get("packages", []))), service["name"]
            assert "libvirt_secrets" not in [check["module"] for check in service.get("checks", [])]
    (controller,) = sample.inventory.get_hosts("controller")[:1]
    templar = sample.templar(controller.name)
    variables = sample.variables(controller.name)
    assert templar.template(variables["guest_image_path"]).endswith(".qcow2")
    assert templar.template(variables["first_cloud_images"])[0]["disk_format"] == "qcow2"
    assert templar.template(variables["guest_image_arguments"])["raw"] is False


def test_the_test_image_is_raw() -> None:
    sample = rendering.load("storage")
    templar, variables = sample.templar(HOST), sample.variables(HOST)
    (image,) = templar.template(variables["first_cloud_images"])
    assert (image["disk_format"], image["path"]) == ("raw", templar.template(variables["guest_image_path"]))
    assert image["path"].endswith(".raw") and templar.template(variables["guest_image_arguments"])["raw"] is True


GUEST = "00000000-0000-4000-8000-000000000001"


def test_preflight_keeps_guests_and_images_in_reach() -> None:
    local = {"guest_disks": {"local": [GUEST], "ceph": []}, "files_in": {"/var/lib/glance/images": 2}}
    found = problems("storage", HOST, facts=local)
    assert [text.split(": ")[0] for text in found] == ["nova_compute_disks = 'ceph'", "glance_file_store_kept = False"]
    assert problems("storage", HOST, facts=local, nova_compute_disks="local", glance_file_store_kept=True) == []
    remote = {"guest_disks": {"local": [], "ceph": [GUEST]}}
    assert problems("storage", HOST, facts=remote) == []
    (taken,) = problems("all_in_one", HOST, facts=remote)
    assert taken.startswith("nova_compute_disks = 'local': ") and GUEST in taken
    (nowhere,) = problems("all_in_one", HOST, nova_compute_disks="ceph")
    assert "the cloud has no Ceph" in nowhere


@pytest.mark.parametrize(
    ("present", "disks", "leaves"),
    [
        ([], "ceph", False),
        (["/var/lib/nova/instances/_base"], "ceph", True),
        (["/var/lib/nova/instances/_base"], "local", False),
        (["/var/lib/nova/instances/_base", KEYRINGS["nova"]], "ceph", False),
    ],
)
def test_a_compute_whose_disks_were_files_forgets_the_images_that_it_kept(
    present: list[str], disks: str, leaves: bool
) -> None:
    sample = rendering.load("storage")
    variables = sample.variables(HOST)
    changes = {"preflight_facts": variables["preflight_facts"] | {"present": present}, "nova_compute_disks": disks}
    assert sample.templar(HOST, changes).template(variables["nova_compute_leaves_files"]) is leaves
