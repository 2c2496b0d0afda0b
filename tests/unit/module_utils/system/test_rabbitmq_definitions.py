# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ's definitions against its file, with recorded output of rabbitmqctl 4.0."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import rabbitmq_definitions as library
from ansible.module_utils.kilonova.system import rabbitmq_definitions
from ansible.module_utils.testing import patch_module_args

USER = {
    "name": "openstack",
    "password_hash": "aGFzaA==",
    "hashing_algorithm": "rabbit_password_hashing_sha256",
    "tags": [],
}
ALL = {"configure": ".*", "write": ".*", "read": ".*"}
WANTED: dict[str, Any] = {
    "users": [USER],
    "vhosts": [{"name": "openstack", "default_queue_type": "quorum"}],
    "permissions": [{"user": "openstack", "vhost": "openstack", **ALL}],
    "topic_permissions": [{"user": "openstack", "vhost": "openstack", "exchange": "nova", "write": ".*", "read": "a"}],
}
# export_definitions adds keys and kinds.
LIVE: dict[str, Any] = {
    "rabbitmq_version": "4.0.5",
    "users": [USER | {"limits": {}}],
    "vhosts": [{"name": "openstack", "default_queue_type": "classic", "limits": [], "metadata": {"tags": []}}],
    "permissions": [{"user": "openstack", "vhost": "openstack", **ALL}],
    "topic_permissions": [{"user": "openstack", "vhost": "openstack", "exchange": "nova", "write": ".*", "read": "a"}],
    "queues": [{"name": "conductor", "vhost": "openstack", "type": "quorum"}],
}
RABBITMQCTL = """#!/bin/sh
case " $* " in
*" export_definitions "*) cat "$FAKE/live" && [ ! -e "$FAKE/down" ] ;;
*) echo "$*" >> "$FAKE/calls" ;;
esac
"""


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin" / "rabbitmqctl"
    program.parent.mkdir()
    program.write_text(RABBITMQCTL)
    program.chmod(0o755)
    systemctl = program.with_name("systemctl")
    systemctl.write_text('#!/bin/sh\n[ "$1" = is-active ] && shift && for unit; do cat "$FAKE/state"; done\n')
    systemctl.chmod(0o755)
    (tmp_path / "state").write_text("active\n")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(tmp_path))
    (tmp_path / "file").write_text(json.dumps(WANTED))
    (tmp_path / "live").write_text(json.dumps(LIVE))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], broker: Path, **arguments: Any) -> dict[str, Any]:
    arguments = {"file": str(broker / "file"), **arguments}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        library.main()
    return dict(json.loads(capsys.readouterr().out))


def test_definitions_that_live_are_left_alone(broker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, broker)
    assert (result["changed"], result["changes"], result["foreign"]) == (False, [], [])
    assert not (broker / "calls").exists()


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("users", [], "RabbitMQ: user openstack"),
        ("users", [USER | {"password_hash": "b3RoZXI="}], "RabbitMQ: user openstack (password_hash)"),
        ("users", [USER | {"tags": ["administrator"]}], "RabbitMQ: user openstack (tags)"),
        ("vhosts", [], "RabbitMQ: virtual host openstack"),
        ("permissions", [], "RabbitMQ: permissions of openstack in openstack"),
        (
            "permissions",
            [{"user": "openstack", "vhost": "openstack", **ALL, "write": ""}],
            "RabbitMQ: permissions of openstack in openstack (write)",
        ),
        ("topic_permissions", [], "RabbitMQ: topic permissions of openstack in openstack in nova"),
    ],
)
def test_what_differs_is_imported(
    broker: Path, capsys: pytest.CaptureFixture[str], kind: str, change: list[dict[str, Any]], says: str
) -> None:
    (broker / "live").write_text(json.dumps(LIVE | {kind: change}))
    assert run(capsys, broker, _ansible_check_mode=True)["changes"] == [says]
    assert not (broker / "calls").exists()
    assert run(capsys, broker)["changes"] == [says]
    assert (broker / "calls").read_text() == f"--silent import_definitions {broker}/file\n"


def test_what_is_not_ours_is_listed(broker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live = copy.deepcopy(LIVE)
    live["users"].append(USER | {"name": "guest"})
    live["permissions"].append({"user": "guest", "vhost": "/", **ALL})
    (broker / "live").write_text(json.dumps(live))
    result = run(capsys, broker)
    assert not result["changed"]
    assert result["foreign"] == ["RabbitMQ: user guest", "RabbitMQ: permissions of guest in /"]


def test_users_are_deleted_on_request(broker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live = copy.deepcopy(LIVE)
    live["users"].append(USER | {"name": "old"})
    live["permissions"].append({"user": "old", "vhost": "openstack", **ALL})
    live["topic_permissions"].append({"user": "old", "vhost": "openstack", "exchange": "nova", "write": "", "read": ""})
    (broker / "live").write_text(json.dumps(live))
    # One that the file defines stays.
    arguments = {"absent_users": ["old", "never", "openstack"]}
    planned = run(capsys, broker, _ansible_check_mode=True, **arguments)
    assert (planned["changed"], planned["changes"]) == (True, ["RabbitMQ: delete user old"])
    assert planned["foreign"] == []
    assert not (broker / "calls").exists()
    assert run(capsys, broker, **arguments)["changed"]
    assert (broker / "calls").read_text() == "--silent delete_user old\n"


def test_a_broker_that_is_down(broker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (broker / "down").touch()
    (broker / "live").write_text("Error: unable to perform an operation on node 'rabbit@ctl1'\n")
    seen = run(capsys, broker, _ansible_check_mode=True)
    assert not seen["changed"] and "unable to perform an operation" in seen["not_looked_at"]
    assert "unable to perform an operation" in run(capsys, broker, timeout=1)["msg"]


def test_before_rabbitmq_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not run(capsys, tmp_path, _ansible_check_mode=True)["changed"]
    assert "does not exist" in run(capsys, tmp_path)["msg"]


def test_a_broker_that_is_stopped_is_not_asked(broker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """rabbitmqctl would start an epmd on every address."""
    (broker / "state").write_text("inactive\n")
    assert rabbitmq_definitions.begin() is None
    seen = run(capsys, broker, _ansible_check_mode=True)
    assert "not both active" in seen["not_looked_at"]
    assert "not both active" in run(capsys, broker, timeout=0)["msg"]
