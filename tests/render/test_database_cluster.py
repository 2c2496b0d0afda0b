# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The database and the front of several controllers, and that one controller has nothing of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from plugins.filter.services import reachable_ports
from tests.render import rendering

HOST = "cloud1"
OTHERS = {"sto2": "192.0.2.32", "sto3": "192.0.2.33"}


def load(**changes: Any) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The maps of MariaDB and HAProxy, and their files, with other values of variables."""
    sample = rendering.load("storage").changed(**changes)
    maps = {one["name"]: one for one in sample.services(HOST) if one["name"] in ("mariadb", "haproxy")}
    texts = [file for one in maps.values() for file in sample.render(HOST, one)]
    return maps, {file.dest: file.text for file in texts if file.text is not None}


@pytest.fixture(scope="module")
def clustered() -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    addresses = ["192.0.2.10", *OTHERS.values()]
    return load(
        cloud_clustered=True, cloud_controllers=[HOST, *OTHERS], cloud_controller_addresses=addresses, cloud_lead="sto2"
    )


def test_one_controller_has_nothing_of_it() -> None:
    maps, texts = load()
    mariadb = maps["mariadb"]
    assert mariadb["packages"] == ["mariadb-server", "python3-pymysql"]
    assert [unit["name"] for unit in mariadb["units"]] == ["mariadb.service"]
    assert [port["name"] for port in mariadb["ports"]] == ["mariadb"]
    assert [check["module"] for check in mariadb["checks"]] == ["mariadb_databases", "openstack_schemas"]
    assert not [path for path in texts if "galera" in path or path.startswith("/etc/mysql/kilonova")]
    assert "\nport" not in texts["/etc/mysql/mariadb.conf.d/90-kilonova.cnf"]
    assert "listen database" not in texts["/etc/haproxy/haproxy.cfg"]


def test_mariadb_is_reached_through_haproxy_only(clustered: tuple[Any, dict[str, str]]) -> None:
    text = clustered[1]["/etc/mysql/mariadb.conf.d/90-kilonova.cnf"]
    assert "bind-address = 127.0.0.1\n" in text and "port = 3307\n" in text
    proxy = clustered[1]["/etc/haproxy/haproxy.cfg"]
    # Two for each connection of services here, one for those of all to the member here, two for each request.
    assert "    maxconn 7000\n" in proxy
    assert "    bind 127.0.0.1:3306\n" in proxy
    binds = [line for line in proxy.splitlines() if "bind 192.0.2.10:330" in line]
    assert len(binds) == 2 and all("verify required" in line and "ca-file" in line for line in binds)


def test_one_member_is_written_to(clustered: tuple[Any, dict[str, str]]) -> None:
    proxy = clustered[1]["/etc/haproxy/haproxy.cfg"]
    section = proxy.partition("\nlisten database\n")[2].partition("\ndefaults\n")[0]
    servers = [line.split() for line in section.splitlines() if line.startswith("    server ")]
    assert [(line[1], line[4], line[-1] == "backup") for line in servers] == [
        ("cloud1", "192.0.2.10", False),
        ("sto2", "192.0.2.32", True),
        ("sto3", "192.0.2.33", True),
    ]
    assert all(line[line.index("verifyhost") + 1] == line[1] for line in servers)
    assert "verify required" in section and "httpchk" in section
    # HAProxy 3.0 forgets clients of connections that wait for a server when it is found down: none is made here.
    for line in servers:
        way = proxy.partition(f"\nlisten database-{line[1]}\n")[2].partition("\n\n")[0]
        assert line[2] in way and f"{line[4]}:3306 ssl verify required verifyhost {line[1]} " in way


def test_galera_verifies_its_peers(clustered: tuple[Any, dict[str, str]]) -> None:
    text = clustered[1]["/etc/mysql/mariadb.conf.d/91-kilonova-galera.cnf"]
    assert "wsrep_cluster_address = gcomm://192.0.2.10,192.0.2.32,192.0.2.33\n" in text
    assert "socket.ssl=yes;socket.ssl_ca=/etc/mysql/kilonova/ca.pem;" in text
    assert "gmcast.listen_addr=ssl://192.0.2.10:4567" in text
    assert text.partition("[sst]")[2].split() == [
        *("encrypt", "=", "3", "tca", "=", "/etc/mysql/kilonova/ca.pem"),
        *("tcert", "=", "/etc/mysql/kilonova/member.pem", "tkey", "=", "/etc/mysql/kilonova/member.pem.key"),
    ]
    assert "innodb_flush_log_at_trx_commit = 1\n" in text
    members = json.loads(clustered[1]["/etc/mysql/kilonova/cluster.json"])["members"]
    assert members == {HOST: "192.0.2.10", **OTHERS}


def test_only_controllers_reach_its_ports(clustered: tuple[dict[str, Any], Any]) -> None:
    ports = {port["name"]: port for port in reachable_ports([clustered[0]["mariadb"]])}
    assert ports["mariadb-member"]["from"] == []
    others = {name: port["from"] for name, port in ports.items() if name != "mariadb-member"}
    assert others == dict.fromkeys(["mariadb", "mariadb-health", "galera", "galera-ist", "galera-sst"], ["controller"])


def test_what_is_shared_is_checked_on_the_lead(clustered: tuple[dict[str, Any], Any]) -> None:
    assert [check["module"] for check in clustered[0]["mariadb"]["checks"]] == ["galera_member"]


def sections(text: str) -> dict[str, list[str]]:
    """The lines of each section of haproxy.cfg, without comments."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith((" ", "#")):
            lines = found.setdefault(line.split(" ")[-1], [])
        elif line.strip() and not line.strip().startswith("#"):
            lines.append(line.strip())
    return found


def test_a_write_is_repeated_only_where_no_service_has_seen_it(clustered: tuple[Any, dict[str, str]]) -> None:
    found = sections(clustered[1]["/etc/haproxy/haproxy.cfg"])
    fronts = [name.removesuffix("-here") for name in found if name.endswith("-here")]
    assert len(fronts) > 5
    for front in fronts:
        writes, here = found[f"{front}-writes"], found[f"{front}-here"]
        assert f"use_backend {front}-writes unless {{ method GET HEAD }} || {{ path_end /auth/tokens }}" in found[front]
        assert "retry-on conn-failure 425" in writes
        assert any(line.startswith("server sto2 ") and line.endswith(f"track {front}/sto2") for line in writes)
        assert "http-request disable-l7-retry unless { method GET HEAD } || { path_end /auth/tokens }" in here
        assert "errorfile 503 /etc/haproxy/unseen.http" in here
    assert clustered[1]["/etc/haproxy/unseen.http"].startswith("HTTP/1.1 425 Too Early\r\n")
    assert "unseen" not in load()[1]["/etc/haproxy/haproxy.cfg"]


def test_maintenance_is_said_by_health_and_keeps_addresses_away(clustered: tuple[Any, dict[str, str]]) -> None:
    found = sections(clustered[1]["/etc/haproxy/haproxy.cfg"])
    answers = [line.split()[3:] for line in found["keystone-here"] if line.startswith("http-request return ")]
    health = ["if", "{", "path", "/kilonova-health", "}"]
    assert answers == [
        ["503", *health, "!{", "srv_is_up(keystone-here/here)", "}"],
        ["404", *health, "{", "srv_is_up(controller/maintenance)", "}", "{", "nbsrv(controller)", "eq", "0", "}"],
        ["200", *health],
    ]
    assert any("health.sock" in line for line in found["controller"])
    # HAProxy lets no server track another that treats 404 otherwise.
    for name in ("keystone", "keystone-writes", "controller"):
        assert any(line.startswith("option httpchk ") for line in found[name])
        assert "http-check disable-on-404" in found[name]
