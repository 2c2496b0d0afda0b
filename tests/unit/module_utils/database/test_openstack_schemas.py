# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Upgrading schemas, with a database and a tool in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.config.urls import database_url
from ansible.module_utils.kilonova.database import openstack_schemas, schemas
from ansible.module_utils.kilonova.database.service_tool import ToolError
from ansible.module_utils.testing import patch_module_args

ENTRY = {
    "name": "glance",
    "connection": database_url("glance", "pass word", "127.0.0.1", "glance"),
    "package": "glance",
    "scripts": "versions",
    "section": "database",
    "user": "glance",
    "command": ["glance-manage", "{config}", "db", "sync"],
    "after": [["glance-manage", "{config}", "db", "load_metadefs"]],
}
UPGRADE, LOAD = "glance-manage db sync", "glance-manage db load_metadefs"


class Database:
    """What the database has recorded, which commands were run, and which ones fail."""

    def __init__(self) -> None:
        self.recorded: list[str] = []
        self.tables: list[str] = []
        self.ran: list[str] = []
        self.failing: list[str] = []

    def run(self, command: list[str]) -> str:
        """Stands in for a tool."""
        name = schemas.words(command)
        self.ran.append(name)
        if name in self.failing:
            self.failing.remove(name)
            raise ToolError("glance-manage ended with code 1", "why: pass word")
        self.recorded = ["one"] if name == UPGRADE else self.recorded
        return ""


class Tool:
    """Stands in for ServiceTool."""

    database: Database

    def __init__(self, *arguments: Any) -> None:
        pass

    @contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def run(self, command: list[str], settings: Any, databases: dict[str, Any]) -> str:
        assert databases == {"database": (ENTRY["connection"], "file")}
        return self.database.run(command)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    made = Database()
    scripts = tmp_path / "versions"
    scripts.mkdir()
    (scripts / "one.py").write_text("revision = 'one'\ndown_revision = None\n")
    monkeypatch.setattr(Tool, "database", made, raising=False)
    monkeypatch.setattr(openstack_schemas, "ServiceTool", Tool)
    monkeypatch.setattr(schemas, "STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.setattr(schemas.Schema, "directory", lambda schema: str(scripts))
    for module in (schemas, openstack_schemas):
        monkeypatch.setattr(module, "connect_url", lambda url: BytesIO())
        monkeypatch.setattr(module, "current_revisions", lambda connection: made.recorded)
        monkeypatch.setattr(module, "tables_of", lambda connection, name: made.tables)
    monkeypatch.setattr(schemas, "connect_to_read", lambda url: BytesIO())
    monkeypatch.setattr(openstack_schemas, "drop_when_empty", lambda schema: made.tables == ["empty"])
    return made


def run(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    with patch_module_args({"schemas": [ENTRY], "_ansible_diff": True, **arguments}), pytest.raises(SystemExit):
        openstack_schemas.run(AnsibleModule(argument_spec=openstack_schemas.ARGUMENT_SPEC, supports_check_mode=True))
    return dict(json.loads(capsys.readouterr().out))


def test_an_upgrade_runs_once_with_the_commands_after_it(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = run(capsys, _ansible_check_mode=True)
    assert database.ran == []
    result = run(capsys)
    assert database.ran == [UPGRADE, LOAD]
    for found in (planned, result):
        assert (found["changed"], found["upgraded"], found["commands"]) == (True, ["glance"], [LOAD])
        assert found["diff"]["after"] == {"glance": ["one"], "commands of glance": [LOAD]}
    again = run(capsys)
    assert (again["changed"], again["upgraded"], again["commands"]) == (False, [], [])
    assert database.ran == [UPGRADE, LOAD]


def test_commands_after_an_upgrade_are_repeated_until_they_succeed(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    database.failing = [LOAD]
    result = run(capsys)
    assert result["failed"] and result["upgraded"] == []
    assert f"Schema glance was upgraded, but is not complete: '{LOAD}' failed" in result["msg"]
    assert "why: ***" in result["msg"]
    planned = run(capsys, _ansible_check_mode=True)
    assert (planned["changed"], planned["upgraded"], planned["commands"]) == (True, [], [LOAD])
    database.ran.clear()
    result = run(capsys)
    assert (result["changed"], result["upgraded"], result["commands"]) == (True, [], [LOAD])
    assert database.ran == [LOAD]
    assert run(capsys)["changed"] is False


@pytest.mark.parametrize(("tables", "starts_over"), [(["empty"], True), (["images"], False), ([], False)])
def test_a_failed_upgrade_starts_over_in_an_empty_database(
    database: Database, capsys: pytest.CaptureFixture[str], tables: list[str], starts_over: bool
) -> None:
    database.tables, database.failing = tables, [UPGRADE]
    result = run(capsys)
    assert result["schemas"]["glance"]["started_over"] is starts_over
    assert result.get("failed", False) is not starts_over
    assert ("held 1 tables of an earlier upgrade" in result.get("msg", "")) is (tables == ["images"])


def test_a_newer_schema_fails_and_needs_you_in_a_dry_run(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    database.recorded = ["future"]
    result = run(capsys)
    assert "has the revision future, which the installed glance does not know" in result["msg"]
    planned = run(capsys, _ansible_check_mode=True)
    assert (planned["changed"], planned["upgraded"]) == (False, [])
    assert ["has the revision future" in text for text in planned["needs_you"]] == [True]


def test_an_unknown_key_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Unsupported parameters" in run(capsys, schemas=[{**ENTRY, "tabels": []}])["msg"]
