# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters over the service maps."""

from __future__ import annotations

import configparser
from typing import Any

import pytest

from plugins.filter import services as filters

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
    "catalog": [
        {"name": "nova", "type": "compute", "description": "OpenStack Compute", "url": "http://10.0.0.11:8774/v2.1"}
    ],
}
GLANCE: dict[str, Any] = {
    "name": "glance",
    "groups": ["controller"],
    "databases": [{"name": "glance", "user": "glance", "password": ODD}],
    "users": [{"name": "glance", "password": "g", "email": "root@localhost"}],
    "catalog": [{"name": "glance", "type": "image", "description": "Image", "url": "http://10.0.0.11:9292"}],
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
    assert [service["name"] for service in filters.services_of(SERVICES, groups)] == names


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        (["all"], ["glance", "nova", "agent"]),
        (["tagged"], ["glance", "nova", "agent"]),
        (["mariadb"], ["glance", "nova", "agent"]),
        (["nova"], ["nova", "agent"]),
        (["glance", "verify"], ["glance"]),
        (["verify"], []),
    ],
)
def test_tags_choose_services(tags: list[str], names: list[str]) -> None:
    services = [GLANCE, NOVA, {"name": "agent", "tags": ["nova"]}]
    assert [service["name"] for service in filters.services_tagged(services, tags, "mariadb")] == names


def test_files_carry_the_role_of_their_templates() -> None:
    one = {"name": "nova_compute", "files": [{"dest": "/etc/x", "src": "x.j2"}, {"dest": "/etc/n", "role": "nova"}]}
    assert filters.files_of(one) == [
        {"dest": "/etc/x", "src": "x.j2", "role": "nova_compute"},
        {"dest": "/etc/n", "role": "nova"},
    ]
    drop_ins = {"name": "nova", "files": [], "units": [{"name": "n.service"}], "after": ["m.service"]}
    assert [file["dest"] for file in filters.files_of(drop_ins)] == [
        "/etc/systemd/system/n.service.d",
        "/etc/systemd/system/n.service.d/kilonova.conf",
        "/etc/systemd/system/n.service.d/kilonova-sandbox.conf",
    ]


def test_a_check_compares_files_without_options_and_all_units() -> None:
    service = {
        "name": "nova",
        "files": [{"dest": "/etc/n", "src": "n.j2", "options": ["nova.conf"]}],
        "units": [{"name": "a.service", "drop_in": False, "logs": ["a/b.log"]}],
        "later_units": [{"name": "b.service", "drop_in": False}],
        "checks": [{"module": "keystone_keys", "args": {}}],
    }
    assert filters.checks_of(service) == {
        "name": "nova",
        "files": [{"dest": "/etc/n", "src": "n.j2", "role": "nova"}],
        "units": [{"name": "a.service", "enabled": True}, {"name": "b.service"}],
        "checks": [{"module": "keystone_keys", "args": {}}],
    }
    assert filters.checks_of({"name": "x"}) == {"name": "x", "files": [], "units": [], "checks": []}


def test_tags_select_a_service_with_those_that_serve_it() -> None:
    maria = {"name": "mariadb", "serves": ["databases", "schemas"]}
    proxy = {"name": "haproxy", "serves": ["proxied"]}
    base = {"name": "base", "serves": ["packages"], "packages": ["python3-apt"]}
    queue = {"name": "rabbitmq", "serves": ["messaging"], "packages": ["rabbitmq-server"]}
    heat: dict[str, Any] = {"name": "heat", "messaging": [{"user": "heat"}]}
    nova = NOVA | {"packages": ["nova-api"], "ports": [{"name": "nova", "port": 8774, "proxied": True}]}
    services = [base, maria, queue, proxy, nova, heat]

    def needed(*tags: str) -> list[str]:
        return [service["name"] for service in filters.services_needed(services, tags)]

    assert needed("nova") == ["base", "mariadb", "haproxy", "nova"]
    assert needed("rabbitmq") == ["base", "rabbitmq"]
    assert needed("haproxy") == ["haproxy"]
    assert needed("heat") == ["rabbitmq", "heat"]
    assert filters.messaging_of(services) == [{"user": "heat"}]
    assert needed("all") == ["base", "mariadb", "rabbitmq", "haproxy", "nova", "heat"]
    assert needed("verify") == []


def test_ports_are_derived_from_the_maps() -> None:
    api = {"name": "nova", "title": "Nova", "port": 8774, "units": ["nova-api"], "proxied": True}
    shell = {"name": "epmd", "title": "the port mapper", "port": 4369, "units": ["epmd", "epmd.socket"]}
    plain = {"name": "amqp", "title": "RabbitMQ without TLS", "port": 5672, "units": ["rabbitmq-server"], "plain": True}
    services: list[dict[str, Any]] = [
        {"groups": ["controller"], "ports": [api]},
        {"groups": ["compute"], "ports": [shell, plain]},
        {"groups": []},
    ]
    assert filters.proxied_ports(services) == [api]
    assert filters.occupied_ports(services, "haproxy.service") == [
        {"port": 8774, "groups": ["controller"], "purpose": "Nova", "units": ["haproxy.service", "nova-api.service"]},
        {"port": 4369, "groups": ["compute"], "purpose": "the port mapper", "units": ["epmd.service", "epmd.socket"]},
    ]


def test_ports_of_ranges_are_not_looked_for_and_protocols_are() -> None:
    ports = [
        {"name": "vnc", "title": "screens", "port": 5900, "last": 6399, "units": ["libvirtd"]},
        {"name": "geneve", "title": "tunnels", "port": 6081, "protocol": "udp", "units": ["ovs-vswitchd"]},
    ]
    (found,) = filters.occupied_ports([{"groups": ["compute"], "ports": ports}], "haproxy.service")
    assert (found["port"], found["protocol"]) == (6081, "udp")


def test_who_may_connect_to_ports() -> None:
    def port(name: str, number: int, **more: Any) -> dict[str, Any]:
        return {"name": name, "title": name, "port": number, "units": ["a"], **more}

    services: list[dict[str, Any]] = [
        {
            "databases": [{"name": "nova_api", "user": "nova"}],
            "ports": [port("metadata", 2, proxied=True, **{"from": ["compute"]})],
        },
        {"databases": [{"name": "heat", "user": "heat"}], "ports": [port("heat", 3, proxied=True)]},
        {"ports": [port("cache", 4, local_users=["services", "root"]), port("queue", 1, **{"from": ["hosts"]})]},
        {"ports": [port("screens", 5, last=9, protocol="udp")]},
    ]
    found = filters.reachable_ports(services)
    assert [(one["name"], one["protocol"], one["ports"], one["from"], one["local_users"]) for one in found] == [
        ("queue", "tcp", "1", ["controller", "compute"], []),
        ("metadata", "tcp", "2", ["compute"], ["haproxy"]),
        ("heat", "tcp", "3", ["everyone"], ["haproxy"]),
        ("cache", "tcp", "4", [], ["heat", "nova", "root"]),
        ("screens", "udp", "5-9", [], []),
    ]
    plain: list[dict[str, Any]] = [{"ports": [port("amqp", 5, plain=True)]}]
    assert filters.reachable_ports(plain) == []
    assert [one["name"] for one in filters.reachable_ports(plain, True)] == ["amqp"]


def test_the_index_has_the_units_of_each_layer_and_their_logs() -> None:
    services = [
        {"layers": {"guest": ["nova-compute"]}, "units": [{"name": "mariadb.service", "logs": ["mysql/error.log"]}]},
        {
            "layers": {"guest": ["nova-compute", "libvirtd"]},
            "later_units": [{"name": "ovn-host.service", "logs": ["o.log"]}],
        },
    ]
    assert filters.service_index(services) == {
        "layers": {"guest": ["nova-compute", "libvirtd"]},
        "logs": {"mariadb": ["mysql/error.log"], "ovn-host": ["o.log"]},
    }


def test_secrets_and_tags_are_collected() -> None:
    services = [{"name": "nova", "secrets": ["a", "b"]}, {"name": "x", "tags": ["neutron", "ovn"], "secrets": ["a"]}]
    assert filters.service_secrets(services) == ["a", "b"]
    assert filters.service_tags(services) == ["neutron", "nova", "ovn"]


def test_credentials_are_files_that_others_may_not_read() -> None:
    files = [
        {"dest": "/etc/a", "mode": "0640"},
        {"dest": "/etc/b"},
        {"dest": "/etc/c", "state": "directory", "mode": "0700"},
        {"dest": "/etc/d", "mode": "0600", "content": "{{ key }}"},
    ]
    assert filters.credentials_of({"files": files}) == [
        {"dest": "/etc/a", "state": "absent"},
        {"dest": "/etc/d", "state": "absent"},
    ]


def test_units_start_at_boot_if_they_run() -> None:
    units = [
        {"name": "a.service", "reads": ["/etc/a"]},
        {"name": "b.service", "state": "stopped"},
        {"name": "c.service", "enabled": False},
    ]
    assert filters.units_of({"units": units}) == [
        {"name": "a.service", "reads": ["/etc/a"], "enabled": True},
        {"name": "b.service", "state": "stopped", "enabled": False},
        {"name": "c.service", "enabled": False},
    ]


def test_units_that_a_role_starts_later_follow_the_others() -> None:
    service = {"name": "a", "files": [], "units": [{"name": "a.service"}], "later_units": [{"name": "b.service"}]}
    assert filters.all_units_of(service) == [{"name": "a.service", "enabled": True}, {"name": "b.service"}]
    assert filters.units_of(service) == [{"name": "a.service", "enabled": True}]
    assert filters.later_units_of(service) == [{"name": "b.service"}]


def test_units_get_drop_ins_with_which_they_come_up() -> None:
    units = [
        {"name": "a.service"},
        {"name": "b.service", "restart": "always", "stop_timeout": 75},
        {"name": "c.service", "drop_in": False},
    ]
    needs: dict[str, Any] = {"after": ["mariadb.service", "rabbitmq-server.service"], "wants": ["x.target", "y.target"]}
    files = filters.drop_ins({"units": [*units, {"name": "d.socket"}], **needs})
    assert [file["dest"] for file in files] == [
        "/etc/systemd/system/a.service.d",
        "/etc/systemd/system/a.service.d/kilonova.conf",
        "/etc/systemd/system/a.service.d/kilonova-sandbox.conf",
        "/etc/systemd/system/b.service.d",
        "/etc/systemd/system/b.service.d/kilonova.conf",
        "/etc/systemd/system/b.service.d/kilonova-sandbox.conf",
    ]
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.optionxform = str  # type: ignore[method-assign, assignment]
    parsed.read_string(files[4]["content"])
    assert dict(parsed["Unit"]) == {
        "Wants": "x.target y.target",
        "After": "mariadb.service rabbitmq-server.service",
        "StartLimitIntervalSec": "0",
    }
    assert dict(parsed["Service"]) == {
        "Restart": "always",
        "TimeoutStopSec": "75",
        "RestartSec": "100ms",
        "RestartSteps": "6",
        "RestartMaxDelaySec": "30s",
        "RuntimeDirectoryPreserve": "yes",
    }
    assert "Restart=" not in files[1]["content"]


def test_a_unit_that_a_role_starts_later_gets_a_drop_in_too() -> None:
    files = filters.drop_ins({"units": [], "later_units": [{"name": "a.service"}]})
    assert files[1]["content"].splitlines()[1:3] == ["[Unit]", "StartLimitIntervalSec=0"]
    assert "RuntimeDirectoryPreserve" not in files[1]["content"]


def test_a_unit_gets_its_sandbox() -> None:
    sandbox = {"ProtectHome": True, "UMask": "0027", "CapabilityBoundingSet": [], "SystemCallFilter": ["@a @b", "~@c"]}
    unit = {"name": "a.service", "sandbox": sandbox, "sandbox_options": {"ProtectHome": False}}
    file = filters.drop_ins({"units": [unit]})[2]
    assert file["dest"] == "/etc/systemd/system/a.service.d/kilonova-sandbox.conf"
    assert file["content"].splitlines()[1:] == [
        "[Service]",
        "CapabilityBoundingSet=",
        "ProtectHome=no",
        "SystemCallFilter=",
        "SystemCallFilter=@a @b",
        "SystemCallFilter=~@c",
        "UMask=0027",
    ]
    without = {**unit, "sandbox": {}}
    assert filters.drop_ins({"units": [without]})[2] == {"dest": file["dest"], "state": "absent"}
    assert filters.units_of({"units": [unit]}) == [{"name": "a.service", "enabled": True}]


def test_a_sandbox_may_wait_for_the_next_start() -> None:
    unit = {"name": "a.service", "sandbox": {"ProtectHome": True}, "sandbox_restarts": False}
    (found,) = filters.later_units_of({"later_units": [unit]})
    assert found == {"name": "a.service", "deferred": ["/etc/systemd/system/a.service.d/kilonova-sandbox.conf"]}


def test_databases_in_the_order_of_the_services() -> None:
    assert filters.databases_of(SERVICES) == [
        {"name": name} for name in ("glance", "nova", "nova_api", "nova_cell0")
    ]  # fmt: skip


def test_a_database_user_is_granted_every_database_that_names_it() -> None:
    glance, nova = filters.database_users(SERVICES, "10.0.0.%")
    assert glance == {
        "name": "glance",
        "host": "10.0.0.%",
        "password": ODD,
        "privileges": [{"database": "glance"}],
    }
    assert nova["privileges"] == [{"database": "nova"}, {"database": "nova_api"}, {"database": "nova_cell0"}]


def test_a_database_user_has_a_second_password_while_it_changes() -> None:
    others = {"nova_database_password": "new", "nova_password": "not this one"}
    glance, nova = filters.database_users(SERVICES, "10.0.0.%", others)
    assert "other_password" not in glance
    assert nova["other_password"] == "new"


def test_keystone_users_get_their_roles_in_the_services_project() -> None:
    users = filters.catalog_users(SERVICES, "services", "service")
    common = {
        "default_project": "services",
        "roles": [{"project": "services", "role": "service"}],
        "exact_roles": True,
        "options": {"ignore_lockout_failure_attempts": True},
    }
    assert users == [
        {"name": "glance", "password": "g", "email": "root@localhost", **common},
        {"name": "nova", "password": ODD, **common},
    ]
    further = [{"users": [{"name": "neutron", "roles": ["nova-admin"]}]}]
    (neutron,) = filters.catalog_users(further, "services", "service")
    assert [entry["role"] for entry in neutron["roles"]] == ["service", "nova-admin"]
    assert NOVA["users"] == [{"name": "nova", "password": ODD}], "the service map itself is not changed"


def test_every_interface_of_a_service_has_the_same_url() -> None:
    url = "http://10.0.0.11:8774/v2.1"
    assert filters.catalog_services([NOVA, COMPUTE]) == [
        {
            "name": "nova",
            "type": "compute",
            "description": "OpenStack Compute",
            "endpoints": {"public": url, "internal": url, "admin": url},
        }
    ]


def test_all_filters_are_offered_to_ansible() -> None:
    offered = filters.FilterModule().filters()
    public = {
        name: value
        for name, value in vars(filters).items()
        if callable(value)
        and getattr(value, "__module__", "") == filters.__name__
        and not name.startswith("_")
        and name not in ("FilterModule", "tags_of")
    }
    assert offered == public


def test_paths_are_those_of_the_files() -> None:
    service: dict[str, Any] = {
        "name": "nova",
        "after": ["mariadb.service"],
        "files": [{"dest": "/etc/nova/nova.conf", "src": "nova.conf.j2"}],
        "units": [{"name": "nova-api.service"}, {"name": "ssh.service", "drop_in": False}],
    }
    assert filters.paths_of(service) == [file["dest"] for file in filters.files_of(service)]
    assert "/etc/systemd/system/nova-api.service.d/kilonova.conf" in filters.paths_of(service)
    service["units"] = service["units"][1:]
    assert filters.paths_of(service) == ["/etc/nova/nova.conf"]


def test_units_come_after_those_that_they_need() -> None:
    database = {"name": "mariadb", "title": "MariaDB", "units": [{"name": "mariadb.service", "reads": ["/etc/my.cnf"]}]}
    keystone: dict[str, Any] = {"name": "keystone", "title": "Keystone", "after": ["mariadb.service"]}
    keystone["units"] = [{"name": "keystone.service"}, {"name": "old.service", "state": "stopped"}]
    assert filters.titled_units([keystone, database]) == [
        {"title": "MariaDB", "name": "mariadb.service", "enabled": True},
        {"title": "Keystone", "name": "keystone.service", "enabled": True},
        {"title": "Keystone", "name": "old.service", "enabled": False, "state": "stopped"},
    ]


def test_changed_files_with_options_are_those_to_check() -> None:
    conf = {"dest": "/etc/nova/nova.conf", "options": ["nova.conf"]}
    service = {"name": "nova", "title": "Nova", "files": [conf, {"dest": "/etc/nova/x"}]}
    assert filters.changed_options([service], {"nova": ["/etc/nova/nova.conf", "/etc/nova/x", "nova-api.service"]}) == [
        {"title": "Nova", "files": [{"role": "nova", **conf}]}
    ]
    assert filters.changed_options([service], {"nova": ["/etc/nova/x"], "glance": ["/etc/nova/nova.conf"]}) == []


def test_hosts_on_which_units_listen() -> None:
    found = {"a": ["x.service", "y.service"], "b": ["x.service"], "c": None}
    hostvars: dict[str, dict[str, Any]] = {
        host: {} if units is None else {"preflight_facts": {"listeners": [{"unit": unit} for unit in units]}}
        for host, units in found.items()
    }
    assert filters.hosts_serving("abc", hostvars, ["x.service", "y.service"]) == ["a"]
    assert filters.hosts_serving("abc", hostvars, ["x.service"]) == ["a", "b"]
