# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Connections to a member are ended between two transactions only."""

from __future__ import annotations

import contextlib
import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import galera_connections as library
import pytest
from ansible.module_utils.kilonova.database import galera_connections
from ansible.module_utils.testing import patch_module_args


class Server:
    """Stands for MariaDB: connections, and whether each is idle."""

    def __init__(self, connections: dict[int, bool]) -> None:
        self.connections, self.killed = connections, list[int]()
        # What becomes idle at the next look.
        self.later: list[int] = []

    def rows(self, _connection: Any, _query: str) -> list[dict[str, Any]]:
        found = [{"id": number, "idle": idle} for number, idle in self.connections.items()]
        self.connections |= dict.fromkeys(self.later, True)
        return found

    @contextlib.contextmanager
    def cursor(self) -> Any:
        yield SimpleNamespace(execute=self.execute)

    def execute(self, statement: str) -> int:
        number = int(statement.removeprefix("KILL CONNECTION "))
        self.killed.append(number)
        del self.connections[number]
        return 0


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: Server, **arguments: Any
) -> dict[str, Any]:
    pymysql = ModuleType("pymysql")
    pymysql.MySQLError = Exception  # type: ignore[attr-defined]
    pymysql.err = SimpleNamespace(OperationalError=ValueError)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pymysql", pymysql)
    monkeypatch.setattr(galera_connections, "require_pymysql", lambda module: None)
    monkeypatch.setattr(galera_connections, "connect_socket", lambda socket, user: server)
    monkeypatch.setattr(galera_connections, "rows", server.rows)
    monkeypatch.setattr(galera_connections, "POLL_SECONDS", 0)
    with patch_module_args({"timeout": 0.2} | arguments), pytest.raises(SystemExit):
        library.main()
    return dict(json.loads(capsys.readouterr().out))


def test_idle_ones_end_and_those_in_use_once_they_are_idle(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server({1: True, 2: False})
    server.later = [2]
    found = run(monkeypatch, capsys, server)
    assert (found["changed"], found["ended"], found["left"]) == (True, 2, 0)
    assert server.killed == [1, 2]


def test_one_in_use_is_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    server = Server({1: True, 2: False})
    found = run(monkeypatch, capsys, server)
    assert (found["ended"], found["left"], server.killed) == (1, 1, [1])


def test_a_dry_run_counts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    server = Server({1: True})
    assert run(monkeypatch, capsys, server, _ansible_check_mode=True)["left"] == 1
    assert server.killed == []
