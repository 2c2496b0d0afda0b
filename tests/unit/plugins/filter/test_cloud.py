# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters over the service maps."""

from __future__ import annotations

import configparser
from typing import Any

import pytest

from plugins.filter import cloud

ODD = "@:/%$#'\"\\ ü"
NOVA: dict[str, Any] = {
    "name": "nova",
    "groups": ["controller"],
    "databases": [
        {"name": "nova", "user": "nova", "password": "n"},
        {"name": "nova_api", "user": "nova", "password": "n"},
        {"name": "nova_cell0", "user": "nova", "password": "n"},
    ],
    "users": [{"name": "nova", "password": ODD}],
    "services": [
        {"name": "nova", "type": "compute", "description": "OpenStack Compute", "url": "http://10.0.0.11:8774/v2.1"}
    ],
}
GLANCE: dict[str, Any] = {
    "name": "glance",
    "groups": ["controller"],
    "databases": [{"name": "glance", "user": "glance", "password": ODD}],
    "users": [{"name": "glance", "password": "g", "email": "root@localhost"}],
    "services": [{"name": "glance", "type": "image", "url": "http://10.0.0.11:9292"}],
}
COMPUTE: dict[str, Any] = {"name": "nova_compute", "groups": ["compute"]}
CHASSIS: dict[str, Any] = {"name": "ovn_chassis", "groups": ["controller", "compute"]}
SERVICES = [GLANCE, NOVA, COMPUTE, CHASSIS]


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        (["controller"], ["glance", "nova", "ovn_chassis"]),
        (["compute"], ["nova_compute", "ovn_chassis"]),
        (["compute", "controller", "lab"], ["glance", "nova", "nova_compute", "ovn_chassis"]),
        (["lab"], []),
    ],
)
def test_a_host_runs_the_services_of_its_groups(groups: list[str], names: list[str]) -> None:
    assert [service["name"] for service in cloud.services_of(SERVICES, groups)] == names


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        (["all"], ["glance", "nova", "the agent"]),
        (["tagged"], ["glance", "nova", "the agent"]),
        (["mariadb"], ["glance", "nova", "the agent"]),
        (["nova"], ["nova", "the agent"]),
        (["glance", "verify"], ["glance"]),
        (["verify"], []),
    ],
)
def test_tags_choose_services(tags: list[str], names: list[str]) -> None:
    services = [GLANCE, NOVA, {"name": "the agent", "tags": ["nova"]}]
    assert [service["name"] for service in cloud.services_tagged(services, tags, "mariadb")] == names


def test_a_look_at_all_services_finds_those_that_are_as_they_shall_be() -> None:
    services = [
        {"name": "a", "files": [{"dest": "/etc/a"}], "units": [{"name": "a.service"}], "after": ["db.service"]},
        {"name": "b", "files": [{"dest": "/etc/b"}], "units": [{"name": "b.service"}]},
        {"name": "c", "files": [{"dest": "/etc/c"}]},
    ]
    nothing: dict[str, Any] = {"changed_files": []}
    assert cloud.services_as_wanted(services, nothing, {"started": [], "restarted": []}) == ["a", "b", "c"]
    assert cloud.services_as_wanted(services, {"changed_files": ["/etc/c"]}, {}) == ["a", "b"]
    drop_in = "/etc/systemd/system/a.service.d/kilonova.conf"
    assert cloud.services_as_wanted(services, {"changed_files": [drop_in]}, {}) == ["b", "c"]
    for verb in ("started", "stopped", "enabled", "disabled", "masked", "unmasked"):
        assert cloud.services_as_wanted(services, nothing, {verb: ["b.service"]}) == ["a", "c"]
    restarted = {"restarted": [{"name": "a.service", "reason": "/etc/x changed"}]}
    assert cloud.services_as_wanted(services, nothing, restarted) == ["b", "c"]


def test_files_know_the_role_that_their_templates_are_in() -> None:
    one = {"name": "nova-compute", "role": "nova_compute", "files": [{"dest": "/etc/x", "src": "x.j2"}]}
    assert cloud.files_of(one) == [{"dest": "/etc/x", "src": "x.j2", "role": "nova_compute"}]
    two = {"name": "nova", "files": [{"dest": "/etc/n", "src": "n.j2", "options": ["nova.conf"]}]}
    assert cloud.files_of(two)[0]["options"] == ["nova.conf"]
    assert cloud.files_of(two, checked=False) == [{"dest": "/etc/n", "src": "n.j2", "role": "nova"}]
    drop_ins = {"name": "nova", "files": [], "units": [{"name": "n.service"}], "after": ["m.service"]}
    assert [file["dest"] for file in cloud.files_of(drop_ins)] == [
        "/etc/systemd/system/n.service.d",
        "/etc/systemd/system/n.service.d/kilonova.conf",
    ]


def test_units_start_at_boot_if_they_run() -> None:
    units = [
        {"name": "a.service", "reads": ["/etc/a"]},
        {"name": "b.service", "state": "stopped"},
        {"name": "c.service", "enabled": False},
    ]
    assert cloud.units_of({"units": units}) == [
        {"name": "a.service", "reads": ["/etc/a"], "enabled": True},
        {"name": "b.service", "state": "stopped", "enabled": False},
        {"name": "c.service", "enabled": False},
    ]


def test_units_that_a_role_starts_later_are_looked_at_with_the_others() -> None:
    service = {"name": "a", "files": [], "units": [{"name": "a.service"}], "later_units": [{"name": "b.service"}]}
    assert cloud.looked_at_units_of(service) == [{"name": "a.service", "enabled": True}, {"name": "b.service"}]
    assert cloud.units_of(service) == [{"name": "a.service", "enabled": True}]
    assert cloud.services_as_wanted([service], {}, {"started": ["b.service"]}) == []
    assert cloud.services_as_wanted([service], {}, {}) == ["a"]


def test_a_service_that_needs_others_gets_a_drop_in_for_each_unit() -> None:
    units = [{"name": "a.service"}, {"name": "b.service"}]
    assert cloud.boot_drop_ins({"units": units}) == []
    files = cloud.boot_drop_ins({"units": units, "after": ["mariadb.service", "rabbitmq-server.service"]})
    assert [file["dest"] for file in files] == [
        "/etc/systemd/system/a.service.d",
        "/etc/systemd/system/a.service.d/kilonova.conf",
        "/etc/systemd/system/b.service.d",
        "/etc/systemd/system/b.service.d/kilonova.conf",
    ]
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.optionxform = str  # type: ignore[method-assign, assignment]
    parsed.read_string(files[1]["content"])
    assert dict(parsed["Unit"]) == {"After": "mariadb.service rabbitmq-server.service", "StartLimitIntervalSec": "0"}
    files = cloud.boot_drop_ins({"units": units, "after": ["a.target"], "wants": ["a.target", "b.target"]})
    assert "\n[Unit]\nWants=a.target b.target\nAfter=a.target\n" in files[1]["content"]


def test_databases_in_the_order_of_the_services() -> None:
    assert cloud.databases_of(SERVICES) == [
        {"name": name} for name in ("glance", "nova", "nova_api", "nova_cell0")
    ]  # fmt: skip


def test_a_database_user_is_granted_every_database_that_names_it() -> None:
    glance, nova = cloud.database_users(SERVICES, "10.0.0.%")
    assert glance == {
        "name": "glance",
        "host": "10.0.0.%",
        "password": ODD,
        "privileges": [{"database": "glance"}],
    }
    assert nova["privileges"] == [{"database": "nova"}, {"database": "nova_api"}, {"database": "nova_cell0"}]


def test_keystone_users_get_their_roles_in_the_services_project() -> None:
    users = cloud.catalog_users(SERVICES, "services", ["admin", "service"])
    roles = [{"project": "services", "role": "admin"}, {"project": "services", "role": "service"}]
    assert users == [
        {"name": "glance", "password": "g", "email": "root@localhost", "default_project": "services", "roles": roles},
        {"name": "nova", "password": ODD, "default_project": "services", "roles": roles},
    ]
    assert NOVA["users"] == [{"name": "nova", "password": ODD}], "the service map itself is not changed"


def test_every_interface_of_a_service_has_the_same_url() -> None:
    url = "http://10.0.0.11:8774/v2.1"
    assert cloud.catalog_services([NOVA, COMPUTE]) == [
        {
            "name": "nova",
            "type": "compute",
            "description": "OpenStack Compute",
            "endpoints": {"public": url, "internal": url, "admin": url},
        }
    ]


def test_all_filters_are_offered_to_ansible() -> None:
    offered = cloud.FilterModule().filters()
    public = {
        name: value
        for name, value in vars(cloud).items()
        if callable(value) and getattr(value, "__module__", "") == cloud.__name__ and name != "FilterModule"
    }
    assert offered == public


def test_paths_are_those_of_the_files() -> None:
    service: dict[str, Any] = {
        "name": "nova",
        "after": ["mariadb.service"],
        "files": [{"dest": "/etc/nova/nova.conf", "src": "nova.conf.j2"}],
        "units": [{"name": "nova-api.service"}, {"name": "ssh.service", "drop_in": False}],
    }
    assert cloud.paths_of(service) == [file["dest"] for file in cloud.files_of(service)]
    assert "/etc/systemd/system/nova-api.service.d/kilonova.conf" in cloud.paths_of(service)
    del service["after"]
    assert cloud.paths_of(service) == ["/etc/nova/nova.conf"]
