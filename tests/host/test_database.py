# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Accounts and settings of MariaDB."""

from __future__ import annotations

import re
from typing import Any

SCHEMAS = {
    "keystone": {"keystone"},
    "glance": {"glance"},
    "placement": {"placement"},
    "neutron": {"neutron"},
    "nova": {"nova", "nova_api", "nova_cell0"},
}
# Accounts that MariaDB creates, for its socket only.
BUILT_IN = {"root", "mysql", "mariadb.sys"}


def query(host: Any, statement: str) -> list[list[str]]:
    done = host.run("mariadb --batch --skip-column-names --execute=%s", statement)
    assert done.rc == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def accounts(host: Any) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in query(host, "SELECT user, host FROM mysql.user WHERE is_role = 'N'")]


def test_no_anonymous_user(host: Any) -> None:
    assert [account for account in accounts(host) if not account[0]] == []


def test_root_logs_in_on_the_host_only(host: Any) -> None:
    assert [account for account in accounts(host) if account[0] in BUILT_IN and account[1] != "localhost"] == []


def test_there_is_no_other_user(site: Any, host: Any) -> None:
    # haproxy reads the state of the cluster, and nothing else.
    wanted = set(SCHEMAS) | ({"haproxy"} if site.clustered else set())
    assert {user for user, _ in accounts(host)} - BUILT_IN == wanted


def test_each_service_may_use_its_schemas_only(host: Any) -> None:
    for user, origin in accounts(host):
        if user in BUILT_IN:
            continue
        grants = [row[0] for row in query(host, f"SHOW GRANTS FOR `{user}`@`{origin}`")]
        everywhere = [grant for grant in grants if " ON *.*" in grant]
        assert all(grant.startswith("GRANT USAGE ON *.*") for grant in everywhere), user
        schemas = {match[1].replace("\\", "") for grant in grants if (match := re.search(r" ON `([^`]+)`\.\*", grant))}
        assert schemas == SCHEMAS.get(user, set()), user
        assert not any("WITH GRANT OPTION" in grant for grant in grants), user


def test_no_test_database(host: Any) -> None:
    names = {row[0] for row in query(host, "SHOW DATABASES")}
    assert "test" not in names
    assert set().union(*SCHEMAS.values()) <= names


def test_metadata_definitions_are_loaded(host: Any) -> None:
    assert query(host, "SELECT COUNT(*) > 0 FROM glance.metadef_namespaces") == [["1"]]


def test_snapshot_isolation_is_off(host: Any) -> None:
    assert query(host, "SELECT @@GLOBAL.innodb_snapshot_isolation") == [["0"]]


def test_no_user_sends_a_file_of_a_client(host: Any) -> None:
    assert query(host, "SELECT @@GLOBAL.local_infile") == [["0"]]
