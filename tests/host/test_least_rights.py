# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What the credentials of a service open, for somebody who took its host over, and what a stranger's guesses do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

# The file that holds the Keystone credentials of a service, and the section.
CREDENTIALS = {
    "glance": ("/etc/glance/glance-api.conf", "keystone_authtoken"),
    "cinder": ("/etc/cinder/cinder.conf", "service_user"),
    "neutron": ("/etc/neutron/neutron.conf", "keystone_authtoken"),
    "nova": ("/etc/nova/nova.conf", "service_user"),
    "placement": ("/etc/placement/placement.conf", "keystone_authtoken"),
}
# Of policy.yaml.j2 in roles/nova and roles/cinder, which users of those that send events to Nova have besides.
NOVA_ADMIN = {"cinder": ["cinder-reader", "nova-admin"], "neutron": ["nova-admin"]}
# As nova-compute reads them, and the sections with which it logs in.
COMPUTE_FILES = ["/etc/nova/nova.conf", "/etc/nova/nova-compute.conf"]
COMPUTE_SECTIONS = ["service_user", "placement", "neutron"]
SERVER = {"name": "x", "flavorRef": "none", "imageRef": "00000000-0000-0000-0000-000000000000"}
# Calls that users and administrators make, and services do not: the endpoint type, the method, the path and the body.
ADMINISTRATION = [
    ("identity", "GET", "/users"),
    ("identity", "GET", "/role_assignments"),
    ("identity", "GET", "/projects"),
    ("identity", "POST", "/users", {"user": {"name": "x"}}),
    ("compute", "GET", "/servers"),
    ("compute", "GET", "/servers?all_tenants=1"),
    ("compute", "POST", "/servers", {"server": SERVER}),
    ("compute", "GET", "/os-hypervisors"),
    ("compute", "GET", "/os-services"),
    ("image", "GET", "/v2/info/stores/detail"),
    ("image", "POST", "/v2/images", {"name": "x"}),
    ("network", "POST", "/v2.0/networks", {"network": {"name": "x"}}),
]
# Where the cloud has a store.
OF_VOLUMES = [
    ("volumev3", "GET", "/volumes"),
    ("volumev3", "GET", "/volumes/detail?all_tenants=1"),
    ("volumev3", "POST", "/volumes", {"volume": {"size": 1}}),
    ("volumev3", "GET", "/os-services"),
]
AS_SERVICE = """
import oslo_config.cfg as cfg
from keystoneauth1 import loading
from openstack.connection import Connection

paths, section, calls = ARGUMENTS
conf = cfg.ConfigOpts()
conf([f"--config-file={path}" for path in paths], project="kilonova-test", default_config_dirs=[])
loading.register_auth_conf_options(conf, section)
loading.register_session_conf_options(conf, section)
auth = loading.load_auth_from_conf_options(conf, section)
session = loading.load_session_from_conf_options(conf, section, auth=auth)
found = {"roles": sorted(auth.get_access(session).role_names)}
found["calls"] = [
    session.request(path, method, endpoint_filter={"service_type": kind}, raise_exc=False,
                    json=body[0] if body else None).status_code
    for kind, method, path, *body in calls
]
found["user"] = auth.get_access(session).username
print(json.dumps(found))
"""
FORBIDDEN = 403


@pytest.mark.parametrize("service", CREDENTIALS)
def test_a_service_does_not_administer_the_cloud(site: Any, run_python: Callable[..., Any], service: str) -> None:
    if service == "cinder" and not site.storage:
        pytest.skip("the cloud has no store")
    path, section = CREDENTIALS[service]
    calls = ADMINISTRATION + (OF_VOLUMES if site.storage else [])
    found = run_python(AS_SERVICE, [path], section, calls)
    assert found["roles"] == sorted(["service", *NOVA_ADMIN.get(service, [])])
    allowed = [call for call, status in zip(calls, found["calls"], strict=True) if status != FORBIDDEN]
    assert [call for call in allowed if service not in NOVA_ADMIN or call[0] != "compute"] == []


@pytest.mark.on("compute")
@pytest.mark.parametrize("section", COMPUTE_SECTIONS)
def test_a_compute_is_no_user_and_no_administrator(site: Any, run_python: Callable[..., Any], section: str) -> None:
    calls = ADMINISTRATION + (OF_VOLUMES if site.storage else [])
    found = run_python(AS_SERVICE, COMPUTE_FILES, section, calls)
    # A rotation changes to the second name, and back.
    assert found["user"] in (f"nova-compute-{site.name}", f"nova-compute2-{site.name}")
    assert found["roles"] == ["service"]
    assert [call for call, status in zip(calls, found["calls"], strict=True) if status != FORBIDDEN] == []


@pytest.mark.on("compute")
def test_a_compute_binds_ports_of_all_projects(
    site: Any, hosts_sites: tuple[Any, ...], run_python: Callable[..., Any], on_cloud: Callable[..., Any]
) -> None:
    """As it does for a guest that migrates."""
    script = """
port = next(cloud.network.ports(device_id=nova.find_server(ARGUMENTS[0]).id))
print(json.dumps([port.id, port.binding_host_id]))
"""
    port, bound_to = on_cloud(script, site.server)
    bindings = f"/v2.0/ports/{port}/bindings"
    others = [one.name for one in hosts_sites if "compute" in one.groups and one.name != bound_to]
    binding = {"binding": {"host": (others or [bound_to])[0], "vnic_type": "normal", "profile": {}}}
    calls = [("network", "GET", bindings), ("network", "POST", bindings, binding)]
    # Where there is no other host: the port has this binding already.
    expected = [200, 201, 204] if others else [200, 409]
    if others:
        calls.append(("network", "DELETE", f"{bindings}/{others[0]}"))
    assert run_python(AS_SERVICE, COMPUTE_FILES, "neutron", calls)["calls"] == expected


def test_service_users_hold_no_other_role_anywhere(on_cloud: Callable[..., Any], hosts_sites: tuple[Any, ...]) -> None:
    script = """
answer = cloud.session.get("/role_assignments?include_names=1", endpoint_filter={"service_type": "identity"}).json()
print(json.dumps([[entry["user"]["name"], entry["role"]["name"]] for entry in answer["role_assignments"]
                  if entry.get("user", {}).get("name") in ARGUMENTS]))
"""
    computes = [f"nova-compute-{one.name}" for one in hosts_sites if "compute" in one.groups]
    services = [name for name in CREDENTIALS if name != "cinder" or hosts_sites[0].storage]
    wanted = [[name, role] for name in (*services, *computes) for role in ("service", *NOVA_ADMIN.get(name, []))]
    # A rotation changes to the second name, and back.
    second = {f"{name}2": name for name in CREDENTIALS}
    second |= {name.replace("compute-", "compute2-", 1): name for name in computes}
    found = on_cloud(script, *CREDENTIALS, *computes, *second)
    assert sorted([second.get(name, name), role] for name, role in found) == sorted(wanted)


def test_the_database_of_cells_holds_no_password(host: Any) -> None:
    found = host.check_output(
        "mariadb --batch --skip-column-names --execute"
        " 'SELECT database_connection, transport_url FROM nova_api.cell_mappings'"
    )
    urls = [url for line in found.splitlines() for url in line.split("\t")]
    assert len(urls) == 4
    assert [url for url in urls if url != "none:///" and ":{password" not in url] == []


def test_guesses_lock_a_user_and_not_the_administrator(on_cloud: Callable[..., Any]) -> None:
    script = """
import secrets

def login(user, password):
    identity = {"methods": ["password"],
                "password": {"user": {"name": user, "domain": {"name": "Default"}, "password": password}}}
    return cloud.session.post(cloud.config.get_auth_args()["auth_url"] + "/auth/tokens", authenticated=False,
                              raise_exc=False, json={"auth": {"identity": identity}}).status_code

name, password = "kn-locked", secrets.token_hex(16)
cloud.delete_user(name)
user = cloud.identity.create_user(name=name, password=password)
try:
    before = login(name, password)
    guesses = [login(one, "not-the-password") for one in (name, "admin") for _ in range(6)]
    print(json.dumps([before, sorted(set(guesses)), login(name, password),
                      login("admin", cloud.config.get_auth_args()["password"])]))
finally:
    cloud.identity.delete_user(user)
"""
    assert on_cloud(script) == [201, [401], 401, 201]


def test_keystone_refuses_a_password_that_is_easily_guessed(on_cloud: Callable[..., Any]) -> None:
    script = """
answer = cloud.session.post("/users", endpoint_filter={"service_type": "identity"}, raise_exc=False,
                            json={"user": {"name": "kn-weak", "password": "a"}})
print(json.dumps([answer.status_code, answer.text]))
"""
    status, text = on_cloud(script)
    assert status == 400 and "at least 8 characters" in text


def test_tokens_survive_the_rotation_of_their_keys(host: Any, on_cloud: Callable[..., Any]) -> None:
    """With the clock of the next period, a new key signs; afterwards, the one of now does again."""
    script = """
import json, subprocess, sys
told = json.load(open("/etc/keystone/token-keys.json"))
def rotate(ahead):
    code = ("import sys, time; now = time.time; time.time = lambda: now() + %d; "
            "sys.argv[1:] = ['/etc/keystone/token-keys.json']; "
            "exec(open('/usr/local/libexec/kilonova/keystone-keys').read())" % ahead)
    subprocess.run(["runuser", "--user", "keystone", "--", "python3", "-c", code], check=True, capture_output=True)
def look():
    return cloud.session.get("/auth/tokens", endpoint_filter={"service_type": "identity"}, raise_exc=False,
                             headers={"X-Subject-Token": token}).status_code
token = cloud.session.get_token()
found = []
for ahead in (told["period_days"] * 86400, 0):
    rotate(ahead)
    found.append(look())
subprocess.run(["systemctl", "start", "kilonova-fernet-rotate.service"], check=True)
print(json.dumps([*found, look()]))
"""
    keys = "find /etc/keystone/fernet-keys -name '[0-9]*' -printf '%f\\n'"
    before = max(map(int, host.check_output(keys).split()))
    assert on_cloud(script) == [200, 200, 200]
    assert max(map(int, host.check_output(keys).split())) > before
    assert host.check_output("systemctl is-active kilonova-fernet-rotate.timer") == "active"
