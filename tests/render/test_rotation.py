# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What hosts get in each stage of a rotation: whatever a service uses is accepted in the stages on both sides."""

from __future__ import annotations

import configparser
import re
from typing import Any
from urllib.parse import unquote

import pytest

from tests.render import rendering
from tests.render.rendering import SECRET

HOSTS = {"all_in_one": "cloud1", "multihost": "ctl1", "storage": "cloud1"}
SERVICES = ("nova", "nova_compute", "neutron", "glance", "placement", "cinder")
# Of guests, of which the test image holds the hash.
NOT_ROTATED = {"guest_image_console_password"}
IN_TURN = ["compute", "keystone", "rabbitmq"]


def classes(inventory: str) -> dict[str, list[str]]:
    sample = rendering.load(inventory)
    found = sample.templar(HOSTS[inventory]).template(sample.variables(HOSTS[inventory])["secrets_classes"])
    assert isinstance(found, dict)
    return found


def stages(inventory: str, second: bool) -> list[dict[str, Any]]:
    """The variables of each stage, and of the time before and after. second: the second accounts are in use before."""
    names = [name for found in classes(inventory).values() for name in found]
    new = {name: f"new {name}, and long enough to derive keys" for name in names}
    before = {"secrets_second_accounts": IN_TURN if second else []}
    after = {**new, "secrets_second_accounts": [] if second else IN_TURN}
    old = {name: template(inventory, {}, name) for name in names}
    return [
        before,
        before | {"secrets_rotation": {"stage": "add", "classes": [], "other": new}},
        after | {"secrets_rotation": {"stage": "use", "classes": [], "other": old}},
        after | {"secrets_rotation": {"stage": "remove", "classes": [], "other": old}},
        after,
    ]


def template(inventory: str, changes: dict[str, Any], name: str, host: str = "") -> Any:
    sample, host = rendering.load(inventory), host or HOSTS[inventory]
    return sample.templar(host, changes).template(sample.variables(host)[name])


def used_in_messaging(inventory: str, changes: dict[str, Any]) -> set[tuple[str, str]]:
    """User and password in each transport URL."""
    sample = rendering.load(inventory)
    users = ("nova", "neutron", "cinder") if inventory == "storage" else ("nova", "neutron")
    urls = [template(inventory, changes, f"{name}_transport_url") for name in users]
    computes = [host for host in sample.hosts() if "compute" in sample.variables(host)["group_names"]]
    urls += [template(inventory, changes, "nova_compute_transport_url", host) for host in computes]
    found = {re.fullmatch(r"rabbit://([^:]+):([^@]+)@.*", url) for url in urls}
    return {(unquote(match.group(1)), unquote(match.group(2))) for match in found if match}


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("inventory", HOSTS)
def test_rabbitmq_knows_what_is_used_and_was_used(inventory: str, second: bool) -> None:
    found = []
    for changes in stages(inventory, second):
        accounts = template(inventory, changes, "rabbitmq_accounts")
        absent = set(template(inventory, changes, "rabbitmq_definitions_arguments")["absent_users"])
        opens = {(one["user"], one["password"].replace("/", "%2F")) for one in accounts}
        assert len(opens) == len(accounts) == len({user for user, _ in opens})
        found.append((used_in_messaging(inventory, changes), opens, absent - {user for user, _ in opens}))
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
    by_name = {one["user"]: one for one in template(inventory, stages(inventory, second)[1], "rabbitmq_accounts")}
    for name, account in by_name.items():
        start, dash, end = name.partition("-")
        twin = by_name[(start.removesuffix("2") if start.endswith("2") else f"{start}2") + dash + end]
        assert {**twin, "user": 0, "password": 0} == {**account, "user": 0, "password": 0}, "the same permissions"


def used_in_keystone(inventory: str, changes: dict[str, Any]) -> set[tuple[str, str]]:
    """User and password in each section that logs in."""
    sample = rendering.load(inventory)
    found = set()
    for host in sample.hosts():
        for file in logging_in(inventory, host, changes):
            conf = configparser.ConfigParser(interpolation=None, strict=False, default_section="none")
            conf.read_string(file)
            for section in conf.sections():
                if conf.has_option(section, "username"):
                    password = conf.get(section, "password").replace("\\$", "$")
                    found.add((conf.get(section, "username"), password))
    return found


def logging_in(inventory: str, host: str, changes: dict[str, Any]) -> list[str]:
    sample = rendering.load(inventory)
    variables = sample.variables(host) | changes
    services = sample.templar(host, changes).template(variables["cloud_services_here"])
    wanted = [one for one in services if one["name"] in SERVICES]
    files = [file for service in wanted for file in sample.render(host, service, variables, changes)]
    return [file.text or "" for file in files if file.dest.endswith(".conf") and "auth_type" in (file.text or "")]


@pytest.mark.parametrize(("inventory", "second"), [("all_in_one", False), ("multihost", True), ("storage", False)])
def test_keystone_knows_what_is_used_and_was_used(inventory: str, second: bool) -> None:
    found = []
    for changes in stages(inventory, second):
        arguments = template(inventory, changes, "catalog_arguments")
        users = [user for user in arguments["users"] if user["name"] != "admin"]
        opens = {(user["name"], user["password"]) for user in users}
        absent = {user["name"] for user in arguments["absent_users"]}
        assert len(opens) == len(users) and not absent & {name for name, _ in opens}
        assert all(user["exact_roles"] and user["roles"] for user in users)
        found.append((used_in_keystone(inventory, changes), opens, absent))
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


@pytest.mark.parametrize("inventory", HOSTS)
def test_mariadb_knows_what_is_used_and_was_used(inventory: str) -> None:
    found = []
    for changes in stages(inventory, second=False):
        users = template(inventory, changes, "mariadb_databases_arguments")["users"]
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
    assert template("all_in_one", changes, "rabbitmq_accounts") == template("all_in_one", {}, "rabbitmq_accounts")


def test_every_value_is_hidden_in_every_stage() -> None:
    for changes in stages("all_in_one", second=False)[1:4]:
        hidden = template("all_in_one", changes, "secrets_values")
        accounts = template("all_in_one", changes, "rabbitmq_accounts")
        assert {one["password"].replace("/", "%2F") for one in accounts} <= set(hidden)
        assert set(changes["secrets_rotation"]["other"].values()) <= set(hidden)
        assert "" not in hidden


def test_hosts_trust_both_authorities_while_the_seed_changes() -> None:
    name = "secrets_pki_seeds"
    before, add, use, remove, after = (template("all_in_one", one, name) for one in stages("all_in_one", second=False))
    (old,), (new,) = before, after
    assert old != new
    assert (add, use, remove) == ([old, new], [new, old], [new]), "the first one signs"


def test_requests_wait_for_services_while_they_restart() -> None:
    sample = rendering.load("all_in_one")
    (haproxy,) = (one for one in sample.services("cloud1") if one["name"] == "haproxy")
    found = []
    for changes in stages("all_in_one", second=False):
        variables = sample.variables("cloud1") | changes
        texts = {file.dest: file.text or "" for file in sample.render("cloud1", haproxy, variables)}
        found.append("retry-on conn-failure empty-response" in texts["/etc/haproxy/haproxy.cfg"])
    assert found == [False, True, True, False, False]


@pytest.mark.parametrize("inventory", HOSTS)
def test_each_account_has_a_secret_that_is_named_after_its_service(inventory: str) -> None:
    """Otherwise the secret changes at once, and what uses it is refused for a while."""
    names = template(inventory, {}, "secrets_names")
    kinds = {"databases": "_database_password", "messaging": "_messaging_password", "users": "_password"}
    found = [
        f"{service['name']}{end}"
        for service in template(inventory, {}, "cloud_services")
        for kind, end in kinds.items()
        if service.get(kind)
    ]
    assert len(found) > 5
    assert set(found) <= set(names)


@pytest.mark.parametrize("inventory", HOSTS)
def test_each_secret_of_a_service_is_rotated(inventory: str) -> None:
    rotated = [name for found in classes(inventory).values() for name in found]
    # Accounts of computes in RabbitMQ and in Keystone; certificates and keys for ssh.
    assert {name for name in rotated if rotated.count(name) > 1} == {"nova_compute_seed", "secrets_pki_seed"}
    assert set(template(inventory, {}, "secrets_names")) - set(rotated) - {"ceph_seed"} == NOT_ROTATED
