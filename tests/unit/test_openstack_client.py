# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Connecting to Keystone: waiting, refusals, and files that do not fit."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils import openstack_client
from ansible.module_utils.openstack_client import connect, secrets_in

PASSWORD = "@:/%$#'\"\\ "


class Failed(Exception):
    pass


class Module:
    """What connect() uses of AnsibleModule."""

    def __init__(self, clouds_file: Path, cloud: str = "admin", timeout: int = 5) -> None:
        self.params = {"cloud": cloud, "clouds_file": str(clouds_file), "api_timeout": timeout}
        self.no_log_values: set[str] = set()
        self.check_mode = False

    def fail_json(self, msg: str, **result: Any) -> None:
        raise Failed(msg)


@pytest.fixture(autouse=True)
def short_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openstack_client, "unit_log", lambda unit: f"log of {unit}")
    monkeypatch.setattr(openstack_client, "POLL_SECONDS", 0.01)


@pytest.fixture
def keystone() -> Iterator[Callable[[list[int]], str]]:
    """Makes a server that answers a login with one status after the other, the last one for ever."""
    statuses: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
            token: dict[str, Any] = {
                "methods": ["password"],
                "expires_at": "2099-01-01T00:00:00Z",
                "issued_at": "2020-01-01T00:00:00Z",
            }
            token |= {"user": {"id": "u", "name": "admin", "domain": {"id": "d", "name": "D"}}, "catalog": []}
            body = json.dumps(
                {"token": token} if status == 201 else {"error": {"message": "no", "code": status}}
            ).encode()
            self.send_response(status)
            self.send_header("X-Subject-Token", "t")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()

    def start(wanted: list[int]) -> str:
        statuses.extend(wanted)
        return f"http://127.0.0.1:{server.server_port}/v3"

    yield start
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def clouds(tmp_path: Path) -> Callable[[str], Path]:
    def write(auth_url: str) -> Path:
        auth = {"auth_url": auth_url, "username": "admin", "password": PASSWORD, "project_name": "admin"}
        auth |= {"user_domain_name": "Default", "project_domain_name": "Default"}
        file = tmp_path / "clouds.yaml"
        file.write_text(yaml.safe_dump({"clouds": {"admin": {"auth": auth, "region_name": "RegionOne"}}}))
        return file

    return write


def test_it_waits_until_keystone_answers_and_hides_the_password(
    keystone: Callable[[list[int]], str], clouds: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_AUTH_URL", "http://127.0.0.1:1/from-the-environment")
    module = Module(clouds(keystone([503, 500, 201])))
    assert connect(module).session.get_token() == "t"
    assert module.no_log_values == {PASSWORD}


def test_a_refused_password_fails_at_once(keystone: Callable[[list[int]], str], clouds: Callable[[str], Path]) -> None:
    with pytest.raises(Failed, match=r"refuses the cloud 'admin'(.|\n)*log of keystone"):
        connect(Module(clouds(keystone([401])), timeout=600))


def test_a_silent_keystone_fails_after_the_timeout(clouds: Callable[[str], Path]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Failed, match=rf"127.0.0.1:{port}/v3 did not answer within 0 s(.|\n)*log of keystone"):
        connect(Module(clouds(f"http://127.0.0.1:{port}/v3"), timeout=0))


def test_a_missing_file_and_an_unknown_cloud_are_named(clouds: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(Failed, match="absent.yaml does not exist"):
        connect(Module(tmp_path / "absent.yaml"))
    with pytest.raises(Failed, match="does not define the cloud 'other'. It defines: admin"):
        connect(Module(clouds("http://127.0.0.1:1/v3"), cloud="other"))


def test_secrets_are_found_at_any_depth() -> None:
    config = {"auth": {"password": "a", "username": "b", "application_credential_secret": "c"}, "token": "d", "n": 1}
    assert set(secrets_in(config)) == {"a", "c", "d"}
