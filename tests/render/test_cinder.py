# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Volumes: what a cloud with a store has of Cinder, and that others have nothing of it."""

from __future__ import annotations

import configparser
import json
import subprocess
from pathlib import Path

import pytest

from tests.render import rendering
from tests.render.rendering import SECRET

STORAGE, HOST = "storage", "cloud1"


def text_of(dest: str) -> str:
    return next(file.text or "" for file in rendering.load(STORAGE).files(HOST) if file.dest == dest)


def ini(text: str) -> configparser.ConfigParser:
    conf = configparser.ConfigParser(interpolation=None, strict=False, default_section="none")
    conf.read_string(text)
    return conf


@pytest.mark.parametrize("inventory", ["all_in_one", "multihost"])
def test_a_cloud_without_a_store_has_nothing_of_cinder(inventory: str) -> None:
    sample = rendering.load(inventory)
    for host in sample.hosts():
        for service in sample.services(host):
            assert "cinder" not in json.dumps(service, default=str), f"{host}: {service['name']}"
        for file in sample.files(host):
            assert "cinder" not in f"{file.dest}{file.text}".lower(), f"{host}: {file.dest}"
        templar = sample.templar(host)
        for name in ("secrets_names", "catalog_arguments", "rabbitmq_accounts"):
            assert "cinder" not in str(templar.template(sample.variables(host)[name])), f"{host}: {name}"


def test_cinder_is_on_controllers_only() -> None:
    sample = rendering.load(STORAGE)
    assert [host for host in sample.hosts() if "cinder" in {one["name"] for one in sample.services(host)}] == [HOST]


def test_volumes_belong_to_no_controller() -> None:
    conf = ini(text_of("/etc/cinder/cinder.conf"))
    assert (conf.get("DEFAULT", "host"), conf.get("DEFAULT", "cluster")) == (HOST, "volumes")


def test_clients_of_the_store_have_keys_of_their_own() -> None:
    conf = ini(text_of("/etc/cinder/cinder.conf"))
    users = {conf.get("ceph", "rbd_user"), conf.get("DEFAULT", "backup_ceph_user")}
    keyrings = {user: ini(text_of(f"/etc/ceph/ceph.client.{user}.keyring")) for user in users}
    keys = {user: keyring[f"client.{user}"]["key"] for user, keyring in keyrings.items()}
    assert keys == {user: keys[user] for user in ("cinder", "cinder-backup")} and len(set(keys.values())) == 2
    uuid = rendering.load(STORAGE).templar(HOST).template(rendering.load(STORAGE).variables(HOST)["ceph_secret_uuids"])
    assert conf.get("ceph", "rbd_secret_uuid") == uuid["cinder"]


def test_calls_between_services_carry_a_token_of_the_service() -> None:
    """CVE-2023-2088: Cinder detaches the volume of a guest only for Nova."""
    cinder, nova = ini(text_of("/etc/cinder/cinder.conf")), ini(text_of("/etc/nova/nova.conf"))
    for conf in (cinder, nova):
        assert conf.get("service_user", "send_service_user_token") == "true"
        assert conf.get("keystone_authtoken", "service_token_roles") == "service"
        assert conf.get("keystone_authtoken", "service_token_roles_required") == "true"
    # No user of its own: Nova asks Cinder with the token of whom it acts for.
    assert dict(nova["cinder"]) == {
        "catalog_info": "volumev3:cinderv3:publicURL",
        "os_region_name": "RegionOne",
        "cafile": "/etc/kilonova/ca.pem",
    }


def test_cinder_has_the_least_roles() -> None:
    sample = rendering.load(STORAGE)
    users = sample.templar(HOST).template(sample.variables(HOST)["catalog_arguments"])["users"]
    (user,) = [one for one in users if one["name"] == "cinder"]
    assert sorted(role["role"] for role in user["roles"]) == ["cinder-reader", "nova-admin", "service"]
    assert user["password"] == SECRET


@pytest.mark.parametrize("unit", ["cinder-volume", "cinder-backup"])
def test_what_reads_images_cannot_become_root(unit: str) -> None:
    sandbox = text_of(f"/etc/systemd/system/{unit}.service.d/kilonova-sandbox.conf")
    for line in ("NoNewPrivileges=yes", "CapabilityBoundingSet=", "SystemCallFilter=capset"):
        assert line in sandbox.splitlines()
    environment = text_of(f"/etc/default/{unit}")
    for section in ("CINDER_SYS_ADMIN", "PRIVSEP_OSBRICK"):
        assert f"export OS_{section}__HELPER_COMMAND=privsep-helper\n" in environment
        assert f"export OS_{section}__CAPABILITIES=\n" in environment


def test_what_cinder_runs_by_sudo_runs_as_its_user(tmp_path: Path) -> None:
    command = tmp_path / "sudo"
    command.write_text(text_of("/usr/local/libexec/kilonova/cinder/sudo"))
    command.chmod(0o755)
    # As oslo.concurrency calls it, with cinder.utils.get_root_helper() before the command.
    words = ["sudo", "cinder-rootwrap", "/etc/cinder/rootwrap.conf", "env", "LC_ALL=C", "printf", "%s|", "a b", "$c"]
    done = subprocess.run(words, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True)
    assert done.stdout == "a b|$c|"
