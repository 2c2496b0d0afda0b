# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Dry runs with services that are not deployed yet, and with deployed ones that do not answer."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import keystone_bootstrap
import keystone_catalog
import mariadb_databases
import nova_cells
import openstack_schemas
import pytest
from ansible.module_utils.kilonova.config.urls import database_url
from ansible.module_utils.kilonova.database import schemas as database_schemas
from ansible.module_utils.kilonova.system import dry_run
from ansible.module_utils.testing import patch_module_args

PASSWORD = "@:/%$#'\"\\ "


@pytest.fixture
def closed_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this a host with MariaDB."""
    monkeypatch.setattr(dry_run, "MARIADB_TABLES", str(tmp_path))


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this a host without MariaDB."""
    monkeypatch.setattr(dry_run, "MARIADB_TABLES", str(tmp_path / "none"))


def run(module: Any, capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    words = {**arguments, "_ansible_check_mode": True, "_ansible_diff": True}
    with patch_module_args(words), pytest.raises(SystemExit):
        module.main()
    return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))


def databases(tmp_path: Path) -> dict[str, Any]:
    user = {"name": "nova", "password": PASSWORD, "privileges": [{"database": "nova"}]}
    return {"databases": [{"name": "nova"}], "users": [user], "login_unix_socket": str(tmp_path / "no.sock")}


def urls(port: int) -> dict[str, Any]:
    def url(name: str) -> str:
        return database_url("nova", PASSWORD, "127.0.0.1", name, port)

    cell = {"name": "cell1", "connection": url("nova"), "transport_url": "rabbit://openstack:hidden@127.0.0.1:5672/"}
    return {"api_connection": url("nova_api"), "cell0_connection": url("nova_cell0"), "cells": [cell]}


def schema(port: int) -> dict[str, Any]:
    return {
        "name": "placement",
        "connection": urls(port)["api_connection"],
        "package": "placement",
        "scripts": "versions",
        "section": "placement_database",
        "user": "placement",
        "command": ["placement-manage", "{config}", "db", "sync"],
    }


@pytest.mark.usefixtures("bare")
def test_a_bare_host_needs_all_databases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(mariadb_databases, capsys, **databases(tmp_path))
    assert result["changed"] is True
    assert result["changes"][0] == "create database nova"
    assert "'nova'@'%'" in " ".join(result["changes"])
    assert PASSWORD not in repr(result["diff"])


@pytest.mark.usefixtures("deployed")
def test_a_stopped_mariadb_predicts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(mariadb_databases, capsys, **databases(tmp_path))
    assert (result["changed"], result["changes"]) == (False, [])
    assert result["not_looked_at"].startswith("MariaDB could not be looked at: ")


@pytest.mark.usefixtures("bare")
def test_a_bare_host_needs_all_cells(closed_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(nova_cells, capsys, **urls(closed_port), expected_hosts=["cmp1"])
    assert (result["changed"], result["mappings"]) == (True, ["map cell0", "map cell1"])
    assert result["hosts"] == ["cmp1"]


@pytest.mark.usefixtures("deployed")
def test_cells_behind_a_stopped_mariadb_are_unknown(closed_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(nova_cells, capsys, **urls(closed_port), expected_hosts=["cmp1"])
    assert (result["changed"], result["mappings"], result["hosts"]) == (False, [], [])
    assert "The cells could not be looked at" in result["not_looked_at"]


@pytest.mark.parametrize("state", ["bare", "deployed"])
def test_schemas(
    state: str,
    closed_port: int,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request.getfixturevalue(state)
    (tmp_path / "one.py").write_text("revision = 'one'\ndown_revision = None\n")
    monkeypatch.setattr(database_schemas.Schema, "directory", lambda schema: str(tmp_path))
    result = run(openstack_schemas, capsys, schemas=[schema(closed_port)])
    assert result["changed"] is (state == "bare")
    assert result["upgraded"] == (["placement"] if state == "bare" else [])
    assert ("not_looked_at" in result) is (state == "deployed")


def test_schemas_whose_programs_are_not_installed(closed_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(openstack_schemas, capsys, schemas=[schema(closed_port)])
    assert (result["changed"], result["upgraded"]) == (True, ["placement"])


def test_a_missing_cloud_needs_the_whole_catalog(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user = {"name": "nova", "password": PASSWORD, "roles": [{"project": "services", "role": "service"}]}
    service = {"name": "nova", "type": "compute", "endpoints": {"public": "http://192.0.2.10:8774/v2.1"}}
    result = run(
        keystone_catalog,
        capsys,
        clouds_file=str(tmp_path / "clouds.yaml"),
        projects=[{"name": "services"}],
        roles=["admin", "service"],
        users=[user],
        services=[service],
    )
    assert result["changed"] is True
    # The bootstrap makes the region and the roles.
    assert [change.split()[:2] for change in result["changes"]] == [
        ["create", "project"],
        ["create", "service"],
        ["create", "endpoint"],
        ["create", "user"],
        ["create", "assignment"],
    ]


def test_a_catalog_behind_a_stopped_keystone_is_unknown(
    tmp_path: Path, closed_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    auth = {
        "auth_url": f"http://127.0.0.1:{closed_port}/v3",
        "username": "a",
        "password": "secret",
        "project_name": "a",
    }
    auth |= {"user_domain_name": "Default", "project_domain_name": "Default"}
    clouds = tmp_path / "clouds.yaml"
    clouds.write_text(json.dumps({"clouds": {"admin": {"auth": auth}}}))
    result = run(keystone_catalog, capsys, clouds_file=str(clouds), projects=[{"name": "services"}])
    assert result["changed"] is False
    assert result["not_looked_at"].startswith("The cloud behind Keystone at http://127.0.0.1:")
    assert "could not be looked at" in result["not_looked_at"]


@pytest.mark.parametrize("installed", [False, True])
def test_bootstrap_of_the_admin_user(
    installed: bool,
    tmp_path: Path,
    closed_port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if installed:
        (tmp_path / "keystone-manage").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "keystone-manage").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run(keystone_bootstrap, capsys, auth_url=f"http://127.0.0.1:{closed_port}/v3", password="p")
    assert result["changed"] is not installed
    assert ("not_looked_at" in result) is installed
