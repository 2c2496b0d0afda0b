# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What hosts get in each stage of a rotation: whatever a service uses is accepted in the stages on both sides."""

from __future__ import annotations

import configparser
import re
from functools import cache
from typing import Any
from urllib.parse import unquote

import pytest

from tests.render import rendering
from tests.render.rendering import SECRET

INVENTORIES = ("all_in_one", "multihost", "storage")
SERVICES = ("nova", "nova_compute", "neutron", "glance", "placement", "cinder")
# Of guests, of which the test image holds the hash.
NOT_ROTATED = {"guest_image_console_password"}
IN_TURN = ["compute", "keystone", "rabbitmq"]


def classes(inventory: str) -> dict[str, list[str]]:
    found = template(rendering.load(inventory), "secrets_classes")
    assert isinstance(found, dict)
    return found


@cache
def stages(inventory: str, second: bool) -> list[rendering.Sample]:
    """The cloud in each stage, before and after. second: the second accounts are in use before."""
    sample = rendering.load(inventory)
    names = [name for found in classes(inventory).values() for name in found]
    new = {name: f"new {name}, and long enough to derive keys" for name in names}
    before = {"secrets_second_accounts": IN_TURN if second else []}
    after = {**new, "secrets_second_accounts": [] if second else IN_TURN}
    old = {name: template(sample, name) for name in names}
    changes: list[dict[str, Any]] = [
        before,
        before | {"secrets_rotation": {"stage": "add", "classes": [], "other": new}},
        after | {"secrets_rotation": {"stage": "use", "classes": [], "other": old}},
        after | {"secrets_rotation": {"stage": "remove", "classes": [], "other": old}},
        after,
    ]
    return [sample.changed(**one) for one in changes]


def template(sample: rendering.Sample, name: str, host: str = "") -> Any:
    host = host or sample.hosts()[0]
    return sample.templar(host).template(sample.variables(host)[name])


def used_in_messaging(sample: rendering.Sample) -> set[tuple[str, str]]:
    """User and password in each transport URL."""
    users = ("nova", "neutron", "cinder") if "storage" in sample.inventory.groups else ("nova", "neutron")
    urls = [template(sample, f"{name}_transport_url") for name in users]
    computes = [host for host in sample.hosts() if "compute" in sample.variables(host)["group_names"]]
    urls += [template(sample, "nova_compute_transport_url", host) for host in computes]
    found = {re.fullmatch(r"rabbit://([^:]+):([^@]+)@.*", url) for url in urls}
    return {(unquote(match.group(1)), unquote(match.group(2))) for match in found if match}


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("inventory", INVENTORIES)
def test_rabbitmq_knows_what_is_used_and_was_used(inventory: str, second: bool) -> None:
    found = []
    for stage in stages(inventory, second):
        accounts = template(stage, "rabbitmq_accounts")
        absent = set(template(stage, "rabbitmq_definitions_arguments")["absent_users"])
        opens = {(one["user"], one["password"].replace("/", "%2F")) for one in accounts}
        assert len(opens) == len(accounts) == len({user for user, _ in opens})
        found.append((used_in_messaging(stage), opens, absent - {user for user, _ in opens}))
    before, add, use, remove, after = found
    for used, opens, _absent in found:
        assert used and used <= opens
    assert add[0] == before[0], "nothing uses new accounts before they are there"
    assert use[0] <= add[1], "they are there before anything uses them"
    assert before[0] <= use[1], "what has not restarted yet can log in"
    assert not remove[1] & before[1]
    assert {user for user, _ in before[1]} <= remove[2], "old accounts are deleted"
    assert remove == after
    assert not {password for _, password in before[1]} & {password for _, password in after[1]}
    by_name = {one["user"]: one for one in template(stages(inventory, second)[1], "rabbitmq_accounts")}
    for name, account in by_name.items():
        start, dash, end = name.partition("-")
        twin = by_name[(start.removesuffix("2") if start.endswith("2") else f"{start}2") + dash + end]
        assert {**twin, "user": 0, "password": 0} == {**account, "user": 0, "password": 0}, "the same permissions"


def used_in_keystone(sample: rendering.Sample) -> set[tuple[str, str]]:
    """User and password in each section that logs in."""
    found = set()
    for host in sample.hosts():
        for file in logging_in(sample, host):
            conf = configparser.ConfigParser(interpolation=None, strict=False, default_section="none")
            conf.read_string(file)
            for section in conf.sections():
                if conf.has_option(section, "username"):
                    password = conf.get(section, "password").replace("\\$", "$")
                    found.add((conf.get(section, "username"), password))
    return found


def logging_in(sample: rendering.Sample, host: str) -> list[str]:
    wanted = [one for one in sample.services(host) if one["name"] in SERVICES]
    files = [file for service in wanted for file in sample.render(host, service)]
    return [file.text or "" for file in files if file.dest.endswith(".conf") and "auth_type" in (file.text or "")]


@pytest.mark.parametrize(("inventory", "second"), [("all_in_one", False), ("multihost", True), ("storage", False)])
def test_keystone_knows_what_is_used_and_was_used(inventory: str, second: bool) -> None:
    found = []
    for stage in stages(inventory, second):
        arguments = template(stage, "catalog_arguments")
        users = [user for user in arguments["users"] if user["name"] != "admin"]
        opens = {(user["name"], user["password"]) for user in users}
        absent = {user["name"] for user in arguments["absent_users"]}
        assert len(opens) == len(users) and not absent & {name for name, _ in opens}
        assert all(user["exact_roles"] and user["roles"] for user in users)
        found.append((used_in_keystone(stage), opens, absent))
    before, add, use, remove, after = found
    for used, opens, _absent in found:
        assert len(used) >= 5 and used <= opens
    assert add[0] == before[0], "nothing uses new users before they are there"
    assert use[0] <= add[1], "they are there before anything uses them"
    assert before[0] <= use[1], "what has not restarted yet can log in"
    assert not remove[1] & before[1]
    assert {name for name, _ in before[1]} == remove[2], "old users are deleted"
    assert remove == after
    assert add[2] == use[2] == set()


@pytest.mark.parametrize("inventory", INVENTORIES)
def test_mariadb_knows_what_is_used_and_was_used(inventory: str) -> None:
    found = []
    for stage in stages(inventory, second=False):
        users = template(stage, "mariadb_databases_arguments")["users"]
        found.append({one["name"]: (one["password"], one.get("other_password")) for one in users})
    before, add, use, remove, after = found
    for name, (password, nothing) in before.items():
        new = f"new {name}_database_password, and long enough to derive keys"
        assert (password, nothing) == (SECRET, None)
        assert (add[name], use[name]) == ((SECRET, new), (new, SECRET))
        assert remove[name] == after[name] == (new, None)


def test_a_rotation_of_one_kind_changes_nothing_else() -> None:
    secret = {"nova_database_password": "a new one, for a test"}
    changes = {"secrets_rotation": {"stage": "add", "classes": ["database"], "other": secret}}
    sample, name = rendering.load("all_in_one"), "rabbitmq_accounts"
    assert template(sample.changed(**changes), name) == template(sample, name)


def test_every_value_is_hidden_in_every_stage() -> None:
    for stage in stages("all_in_one", second=False)[1:4]:
        hidden = template(stage, "secrets_values")
        accounts = template(stage, "rabbitmq_accounts")
        assert {one["password"].replace("/", "%2F") for one in accounts} <= set(hidden)
        assert set(stage.changes["secrets_rotation"]["other"].values()) <= set(hidden)
        assert "" not in hidden


def test_hosts_trust_both_authorities_while_the_seed_changes() -> None:
    name = "secrets_pki_seeds"
    before, add, use, remove, after = (template(one, name) for one in stages("all_in_one", second=False))
    (old,), (new,) = before, after
    assert old != new
    assert (add, use, remove) == ([old, new], [new, old], [new]), "the first one signs"


def test_requests_wait_for_services_while_they_restart() -> None:
    sample = rendering.load("all_in_one")
    (haproxy,) = (one for one in sample.services("cloud1") if one["name"] == "haproxy")
    found = []
    for stage in stages("all_in_one", second=False):
        texts = {file.dest: file.text or "" for file in stage.render("cloud1", haproxy)}
        found.append("retry-on conn-failure empty-response" in texts["/etc/haproxy/haproxy.cfg"])
    assert found == [False, True, True, False, False]


@pytest.mark.parametrize("inventory", INVENTORIES)
def test_each_account_has_a_secret_that_is_named_after_its_service(inventory: str) -> None:
    """Otherwise the secret changes at once, and what uses it is refused for a while."""
    names = template(rendering.load(inventory), "secrets_names")
    kinds = {"databases": "_database_password", "messaging": "_messaging_password", "users": "_password"}
    found = [
        f"{service['name']}{end}"
        for service in template(rendering.load(inventory), "cloud_services")
        for kind, end in kinds.items()
        if service.get(kind)
    ]
    assert len(found) > 5
    assert set(found) <= set(names)


@pytest.mark.parametrize("inventory", INVENTORIES)
def test_each_secret_of_a_service_is_rotated(inventory: str) -> None:
    rotated = [name for found in classes(inventory).values() for name in found]
    # Accounts of computes in RabbitMQ and in Keystone; certificates and keys for ssh.
    assert {name for name in rotated if rotated.count(name) > 1} == {"nova_compute_seed", "secrets_pki_seed"}
    assert set(template(rendering.load(inventory), "secrets_names")) - set(rotated) - {"ceph_seed"} == NOT_ROTATED
