# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Bootstrapping the admin user, against an HTTP server that answers logins as Keystone does."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud import keystone_bootstrap, token_cache
from ansible.module_utils.testing import patch_module_args

PASSWORD = "@:/%$#'\"\\ x"
FAKE_KEYSTONE_MANAGE = """#!/bin/sh
# Sets the password that the server accepts, and records how it was called.
printf '%s\\n' "$@" > "$FAKE/call"
if [ -e "$FAKE/broken" ]; then cat "$FAKE/broken"; echo "password is $OS_BOOTSTRAP_PASSWORD ." >&2; exit 3; fi
printf '%s' "$OS_BOOTSTRAP_PASSWORD" > "$FAKE/password"
"""
FAKE_SYSTEMCTL = """#!/bin/sh
[ -e "$FAKE/failed" ]
"""


class Keystone:
    """A token API with one user, whose password is in a file, and the tools of its host."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.first: list[int] = []  # statuses of its first answers
        self.requests: list[dict[str, Any]] = []
        self.looks = 0
        keystone = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                keystone.requests.append({"path": self.path, "body": body})
                status = keystone.first.pop(0) if keystone.first else keystone.login(body)
                self.send_response(status)
                if status == 201:
                    self.send_header("X-Subject-Token", "t")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                assert self.headers["X-Auth-Token"] == self.headers["X-Subject-Token"] == "t"
                keystone.looks += 1
                stored = keystone.directory / "password"
                # Keystone revokes tokens when the password changes.
                self.send_response(200 if stored.exists() and stored.read_text() == PASSWORD else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v3"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()

    def login(self, body: dict[str, Any]) -> int:
        user = body["auth"]["identity"]["password"]["user"]
        stored = self.directory / "password"
        right = stored.exists() and stored.read_text() == user["password"] and user["name"] == "admin"
        return 201 if right else 401

    def calls(self) -> list[str]:
        """The words of the last call of keystone-manage."""
        path = self.directory / "call"
        return path.read_text().splitlines() if path.exists() else []


def as_this_user(command: list[str], check: bool, **options: Any) -> subprocess.CompletedProcess[Any]:
    """subprocess.run, but as the test's own user: there is no user keystone here."""
    if command[0] == "keystone-manage":
        become = {name: options.pop(name) for name in ("user", "group", "extra_groups", "cwd")}
        assert become == {"user": "keystone", "group": "keystone", "extra_groups": [], "cwd": "/var/lib/keystone"}
    return subprocess.run(command, check=check, **options)


@pytest.fixture
def keystone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keystone]:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("keystone-manage", FAKE_KEYSTONE_MANAGE), ("systemctl", FAKE_SYSTEMCTL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setattr(keystone_bootstrap, "subprocess", SimpleNamespace(run=as_this_user))
    monkeypatch.setattr(keystone_bootstrap, "unit_log", lambda unit: f"log of {unit}")
    monkeypatch.setattr(keystone_bootstrap, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(token_cache, "TOKENS", str(tmp_path / "run" / "tokens"))
    monkeypatch.setattr(keystone_bootstrap, "BEGUN", str(tmp_path / "state" / "begun"))
    made = Keystone(tmp_path)
    yield made
    made.stop()


def call() -> None:
    """Run the module with the arguments that are patched in."""
    keystone_bootstrap.run(AnsibleModule(argument_spec=keystone_bootstrap.ARGUMENT_SPEC, supports_check_mode=True))


def run(capsys: pytest.CaptureFixture[str], keystone: Keystone, **arguments: Any) -> dict[str, Any]:
    defaults = {"auth_url": keystone.url, "password": PASSWORD, "timeout": 5}
    with patch_module_args(defaults | arguments), pytest.raises(SystemExit):
        call()
    return dict(json.loads(capsys.readouterr().out))


def test_the_user_is_created_once(keystone: Keystone, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(capsys, keystone)
    assert (first["changed"], first["reason"]) == (True, "Keystone refused the login with status 401")
    assert (keystone.directory / "password").read_text() == PASSWORD
    assert keystone.calls() == [
        "bootstrap",
        "--bootstrap-username=admin",
        "--bootstrap-project-name=admin",
        "--bootstrap-role-name=admin",
        "--bootstrap-region-id=RegionOne",
    ]
    (keystone.directory / "call").unlink()
    second = run(capsys, keystone)
    assert (second["changed"], second["reason"]) == (False, "")
    assert keystone.calls() == []


def test_an_interrupted_bootstrap_is_finished(
    keystone: Keystone, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The login works already, but roles that the command creates later may be missing."""

    class Killed(BaseException):
        pass

    def killed(command: list[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        as_this_user(command, **options)
        raise Killed

    monkeypatch.setattr(keystone_bootstrap.subprocess, "run", killed)
    with pytest.raises(Killed), patch_module_args({"auth_url": keystone.url, "password": PASSWORD}):
        call()
    (keystone.directory / "call").unlink()
    monkeypatch.setattr(keystone_bootstrap.subprocess, "run", as_this_user)
    second = run(capsys, keystone)
    assert (second["changed"], second["reason"]) == (True, "an earlier keystone-manage bootstrap was interrupted")
    assert keystone.calls()[0] == "bootstrap"
    assert run(capsys, keystone)["changed"] is False


def test_a_changed_password_is_repaired(keystone: Keystone, capsys: pytest.CaptureFixture[str]) -> None:
    (keystone.directory / "password").write_text("another")
    assert run(capsys, keystone)["changed"] is True
    assert (keystone.directory / "password").read_text() == PASSWORD


def test_a_token_serves_as_a_login_until_the_password_changes(
    keystone: Keystone, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (keystone.directory / "password").write_text(PASSWORD)
    assert run(capsys, keystone, _ansible_check_mode=True)["changed"] is False
    assert not (tmp_path / "run").exists()
    for _ in range(3):
        assert run(capsys, keystone)["changed"] is False
    assert (len(keystone.requests), keystone.looks) == (2, 2)
    (keystone.directory / "password").write_text("another")
    assert run(capsys, keystone)["changed"] is True
    # A token counts for one user and one password only.
    assert run(capsys, keystone, username="other", _ansible_check_mode=True)["changed"] is True
    assert run(capsys, keystone, password="wrong", _ansible_check_mode=True)["changed"] is True


def test_the_login_is_to_the_project(keystone: Keystone, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, keystone, auth_url=f"{keystone.url}/", project="ops", domain="Corp")
    assert keystone.requests[0] == {
        "path": "/v3/auth/tokens?nocatalog",
        "body": {
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {"user": {"name": "admin", "domain": {"name": "Corp"}, "password": PASSWORD}},
                },
                "scope": {"project": {"name": "ops", "domain": {"name": "Corp"}}},
            }
        },
    }
    assert "--bootstrap-project-name=ops" in keystone.calls()


def test_it_waits_for_keystone(keystone: Keystone, capsys: pytest.CaptureFixture[str]) -> None:
    (keystone.directory / "password").write_text(PASSWORD)
    keystone.first = [503, 500, 502]
    assert run(capsys, keystone)["changed"] is False
    assert len(keystone.requests) == 4


def test_check_mode_predicts_and_does_not_wait(keystone: Keystone, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, keystone, _ansible_check_mode=True)
    assert (result["changed"], result["reason"]) == (True, "Keystone refused the login with status 401")
    keystone.stop()
    began = time.monotonic()
    result = run(capsys, keystone, _ansible_check_mode=True, timeout=60)
    # Keystone is installed, so its state is unknown; test_dry_run.py covers a host without it.
    assert (result["changed"], result["reason"]) == (False, f"Keystone at {keystone.url} does not answer yet")
    assert time.monotonic() - began < 10
    assert keystone.calls() == []


@pytest.mark.parametrize("status", [400, 403, 429])
def test_other_refusals_are_not_bootstrapped_away(
    keystone: Keystone, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    keystone.first = [status]
    result = run(capsys, keystone)
    assert result["failed"]
    assert f"answers a login with status {status} within 5 s" in result["msg"]
    assert "log of keystone.service" in result["msg"]
    keystone.first = [status]
    result = run(capsys, keystone, _ansible_check_mode=True)
    assert not result["changed"]
    assert f"answers a login with status {status}" in result["needs_you"][0]
    assert keystone.calls() == []


def test_a_silent_keystone_fails_after_the_timeout(keystone: Keystone, capsys: pytest.CaptureFixture[str]) -> None:
    keystone.stop()
    result = run(capsys, keystone, timeout=1)
    assert "does not answer within 1 s" in result["msg"]
    assert "log of keystone.service" in result["msg"]


def test_a_failed_unit_is_not_waited_for(keystone: Keystone, capsys: pytest.CaptureFixture[str]) -> None:
    keystone.stop()
    (keystone.directory / "failed").touch()
    began = time.monotonic()
    assert "does not answer" in run(capsys, keystone, timeout=60)["msg"]
    assert time.monotonic() - began < 10


def test_a_failed_bootstrap_shows_its_last_lines_but_no_password(
    keystone: Keystone, capsys: pytest.CaptureFixture[str]
) -> None:
    (keystone.directory / "broken").write_text("".join(f"line {number}\n" for number in range(40)))
    message = run(capsys, keystone)["msg"]
    assert message.startswith("keystone-manage bootstrap ended with 3. Its last lines:\nline 21\n")
    assert PASSWORD not in message and "password is ***" in message


def test_a_user_that_still_cannot_log_in_fails(keystone: Keystone, capsys: pytest.CaptureFixture[str]) -> None:
    keystone.first = [401, 401]
    message = run(capsys, keystone)["msg"]
    assert "answers a login with status 401 right after keystone-manage bootstrap succeeded" in message


def test_the_password_is_not_on_the_command_line() -> None:
    params = {"username": "admin", "project": "admin", "region": "R", "password": PASSWORD}
    assert [word for word in keystone_bootstrap.bootstrap_command(params) if PASSWORD in word] == []
