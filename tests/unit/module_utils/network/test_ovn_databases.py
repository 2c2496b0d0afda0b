# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Connections of OVN's databases, with recorded answers of ovsdb-client 3.5."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import ovn_databases as library
import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.network import ovn_databases
from ansible.module_utils.testing import patch_module_args

NEW = '[{"rows":[]},{"rows":[]}]'
SET = (
    '[{"rows":[{"role":"","target":"pssl:16643:127.0.0.1"},{"role":"ovn-controller","target":"pssl:16642:10.0.0.11"}]},'
    '{"rows":[{"ca_cert":"/a","certificate":"/c","private_key":"/k"}]}]'
)
PLAIN = '[{"rows":[{"role":"","target":"ptcp:6642:10.0.0.11"}]},{"rows":[]}]'
WANTED: dict[str, Any] = {
    "name": "southbound",
    "connections": [
        {"target": "pssl:16642:10.0.0.11", "role": "ovn-controller"},
        {"target": "pssl:16643:127.0.0.1", "role": ""},
    ],
    "private_key": "/k",
    "certificate": "/c",
    "ca_cert": "/a",
}


def planned(answer: str, **wanted: Any) -> tuple[list[str], list[str]]:
    return ovn_databases.plan("southbound", ovn_databases.state_from(json.loads(answer)), WANTED | wanted)


def test_a_database_that_is_as_wanted_is_left_alone() -> None:
    assert planned(SET) == ([], [])


def test_a_new_database_gets_certificates_before_connections() -> None:
    arguments, changes = planned(NEW)
    # A role holds for all targets after it.
    assert " ".join(arguments) == (
        "-- set-ssl /k /c /a -- set-connection pssl:16643:127.0.0.1 role=ovn-controller pssl:16642:10.0.0.11"
    )
    assert changes == [
        "OVN southbound: certificate /c",
        "OVN southbound: pssl:16642:10.0.0.11 for ovn-controller",
        "OVN southbound: pssl:16643:127.0.0.1 for all",
    ]


def test_what_is_not_wanted_is_closed() -> None:
    arguments, changes = planned(PLAIN)
    assert "ptcp:6642:10.0.0.11" not in arguments
    assert "OVN southbound: ptcp:6642:10.0.0.11 closed" in changes
    assert planned(SET, connections=[])[0] == ["--", "del-connection"]


def test_a_role_that_was_taken_away_comes_back() -> None:
    _, changes = planned(SET.replace('"ovn-controller"', '["set",[]]'))
    assert changes == ["OVN southbound: pssl:16642:10.0.0.11 for ovn-controller"]


def test_another_certificate_is_set() -> None:
    assert planned(SET, certificate="/d") == (["--", "set-ssl", "/k", "/d", "/a"], ["OVN southbound: certificate /d"])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the module with this answer of ovsdb-client; "" where none comes. Return result and commands."""
    socket = tmp_path / "socket"
    socket.touch()
    southbound = replace(ovn_databases.DATABASES["southbound"], socket=str(socket))
    monkeypatch.setitem(ovn_databases.DATABASES, "southbound", southbound)
    monkeypatch.setattr(ovn_databases, "POLL_SECONDS", 0)
    monkeypatch.setattr(ovn_databases, "unit_log", lambda _: "its log")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")

    def call(answer: str, **arguments: Any) -> tuple[dict[str, Any], list[list[str]]]:
        commands: list[list[str]] = []

        def run_command(_: AnsibleModule, command: list[str]) -> tuple[int, str, str]:
            commands.append(command)
            return (0, answer, "") if answer else (1, "", "no answer")

        monkeypatch.setattr(AnsibleModule, "run_command", run_command)
        with patch_module_args({"databases": [WANTED], "timeout": 0, **arguments}), pytest.raises(SystemExit):
            library.main()
        return json.loads(capsys.readouterr().out), commands

    return call


def test_differences_are_applied_in_one_transaction(run: Any) -> None:
    result, commands = run(NEW)
    assert result["changed"] is True
    assert [command[0] for command in commands] == ["/usr/bin/ovsdb-client", "ovn-sbctl"]
    result, commands = run(NEW, _ansible_check_mode=True)
    assert (result["changed"], len(commands)) == (True, 1)
    result, commands = run(SET)
    assert (result["changed"], len(commands)) == (False, 1)


def test_a_database_that_does_not_answer(run: Any) -> None:
    result, _ = run("")
    assert result["msg"] == "OVN's southbound database does not answer: no answer\nits log"
    result, _ = run("", _ansible_check_mode=True)
    assert result["changed"] is False
    assert result["not_looked_at"].startswith("OVN's southbound database could not be looked at: no answer")


def test_before_ovn_is_installed(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    result, commands = run("", _ansible_check_mode=True)
    assert (len(result["changes"]), commands) == (3, [])


def test_an_error_of_the_database_is_no_state() -> None:
    with pytest.raises(ValueError, match="syntax error"):
        ovn_databases.state_from([{"error": "syntax error", "details": "no table"}])
