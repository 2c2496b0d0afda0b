# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Values of the inventory are what the running services work with.

molecule/multihost/inventory/group_vars/all/cloud.yml sets them. That each variable reaches a file or a task is tested
without hosts, by tests/render/test_every_variable.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    os.environ.get("MOLECULE_SCENARIO_NAME") != "multihost", reason="only the scenario multihost has such values"
)
ASK_MEMCACHED = """
import socket
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect("/run/kilonova-memcached/keystone/socket")
    connection.sendall(b"stats settings\\r\\nquit\\r\\n")
    text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
print(json.dumps(dict(line.split(" ")[1:3] for line in text.splitlines() if line.startswith("STAT "))))
"""
ASK_HAPROXY = """
import socket
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect("/run/haproxy/admin.sock")
    connection.sendall(b"show info\\n")
    text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
print(json.dumps(dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)))
"""
ASK_KEYSTONE = """
import datetime, openstack
session = openstack.connect(cloud="admin").session
access = session.auth.get_access(session)
print(json.dumps((access.expires - access.issued).total_seconds()))
"""
ASK_PLACEMENT = """
import openstack
placement = openstack.connect(cloud="admin").placement
inventories = [
    placement.get(f"/resource_providers/{one.id}/inventories").json()["inventories"]
    for one in placement.resource_providers()
]
print(json.dumps([one["MEMORY_MB"]["reserved"] for one in inventories]))
"""


@pytest.mark.parametrize(("name", "value"), [("max_heap_table_size", str(32 * 1024**2)), ("max_connections", "900")])
def test_mariadb(host: Any, name: str, value: str) -> None:
    assert host.check_output("mariadb --batch --skip-column-names --execute 'SELECT @@%s'", name) == value


def test_memcached(run_python: Callable[..., Any]) -> None:
    found = run_python(ASK_MEMCACHED)
    assert (found["maxbytes"], found["maxconns"]) == (str(96 * 1024**2), "2048")


def test_haproxy(site: Any, run_python: Callable[..., Any]) -> None:
    # With several controllers, each is followed by another one, and those to the database by two.
    assert run_python(ASK_HAPROXY)["Maxconn"] == str(2 * 1500 + 3 * 900 if site.clustered else 1500)


def test_rabbitmq(host: Any) -> None:
    assert host.check_output("rabbitmqctl --silent eval 'application:get_env(rabbit, heartbeat).'") == "{ok,30}"
    assert "nova" in host.check_output("rabbitmqctl --silent list_exchanges --vhost site name").split()


def test_tokens_live_as_long_as_the_inventory_says(run_python: Callable[..., Any]) -> None:
    assert run_python(ASK_KEYSTONE) == pytest.approx(7200, abs=2)


def test_guests_do_not_get_what_is_reserved(run_python: Callable[..., Any]) -> None:
    assert set(run_python(ASK_PLACEMENT)) == {600}


def test_images_are_where_the_inventory_says(host: Any) -> None:
    directory = host.file("/srv/images")
    assert (directory.user, directory.group, directory.mode) == ("glance", "glance", 0o750)
    assert directory.listdir() != []


def test_packages_of_the_site_are_installed(host: Any) -> None:
    assert host.package("tcpdump").is_installed


def test_guests_are_told_the_domain(host: Any) -> None:
    assert 'domain_name="site.example."' in host.check_output(
        "ovn-nbctl --no-leader-only --bare --columns=options list DHCP_Options"
    )
