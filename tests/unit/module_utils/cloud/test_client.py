# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Connecting to Keystone: waiting, refusals, tokens, and unusable clouds files."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.module_utils.kilonova.cloud import client, token_cache
from ansible.module_utils.kilonova.cloud.client import connect, secrets_in
from openstack.config import OpenStackConfig, cloud_region

PASSWORD = "@:/%$#'\"\\ "


class Failed(Exception):
    pass


class Module:
    """The part of AnsibleModule that connect() uses."""

    def __init__(self, clouds_file: Path, cloud: str = "admin", timeout: int = 5) -> None:
        self.params = {"cloud": cloud, "clouds_file": str(clouds_file), "api_timeout": timeout}
        self.no_log_values: set[str] = set()
        self.check_mode = False

    def fail_json(self, msg: str, **result: Any) -> None:
        raise Failed(msg)


@pytest.fixture(autouse=True)
def short_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "unit_log", lambda unit: f"log of {unit}")
    monkeypatch.setattr(client, "POLL_SECONDS", 0.01)


@pytest.fixture(autouse=True)
def tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory of cached tokens."""
    directory = tmp_path / "run" / "tokens"
    monkeypatch.setattr(token_cache, "TOKENS", str(directory))
    return directory


@pytest.fixture
def asked() -> list[str]:
    """Keystone's requests: LOGIN, or the token to validate."""
    return []


@pytest.fixture
def keystone(asked: list[str]) -> Iterator[Callable[[list[int]], str]]:
    """Call with statuses. The server answers logins and token validations with them and repeats the last one."""
    statuses: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append("LOGIN")
            self.answer()

        def do_GET(self) -> None:
            if self.path != "/v3/auth/tokens":
                self.send_error(501)
                return
            assert self.headers["X-Auth-Token"] == self.headers["X-Subject-Token"]
            asked.append(self.headers["X-Subject-Token"])
            self.answer()

        def answer(self) -> None:
            status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
            token: dict[str, Any] = {
                "methods": ["password"],
                "expires_at": "2099-01-01T00:00:00Z",
                "issued_at": "2020-01-01T00:00:00Z",
            }
            token |= {"user": {"id": "u", "name": "admin", "domain": {"id": "d", "name": "D"}}, "catalog": []}
            body = json.dumps(
                {"token": token} if status < 300 else {"error": {"message": "no", "code": status}}
            ).encode()
            self.send_response(status)
            self.send_header("X-Subject-Token", f"t{len(asked)}")
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
    assert connect(module).session.get_token() == "t3"
    assert module.no_log_values == {PASSWORD, "t3"}


def test_a_refused_password_fails_at_once(keystone: Callable[[list[int]], str], clouds: Callable[[str], Path]) -> None:
    with pytest.raises(Failed, match=r"refuses the cloud 'admin'(.|\n)*log of keystone"):
        connect(Module(clouds(keystone([401])), timeout=600))


def test_the_next_call_uses_the_same_token(
    keystone: Callable[[list[int]], str], clouds: Callable[[str], Path], asked: list[str], tokens: Path
) -> None:
    file = clouds(keystone([201, 503, 200]))
    connect(Module(file))
    assert tokens.stat().st_mode & 0o777 == 0o700
    (kept,) = tokens.iterdir()
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == ("t1", 0o600)
    # Waits for Keystone as a login does.
    module = Module(file)
    assert connect(module).session.get_token() == "t1"
    assert asked == ["LOGIN", "t1", "t1"] and module.no_log_values == {PASSWORD, "t1"}


@pytest.mark.parametrize("status", [401, 404])
def test_a_token_that_keystone_no_longer_accepts_is_replaced(
    keystone: Callable[[list[int]], str], clouds: Callable[[str], Path], asked: list[str], tokens: Path, status: int
) -> None:
    file = clouds(keystone([201, status, 201]))
    connect(Module(file))
    assert connect(Module(file)).session.get_token() == "t3"
    assert asked == ["LOGIN", "t1", "LOGIN"]
    assert [kept.read_text() for kept in tokens.iterdir()] == ["t3"]


def test_a_token_is_only_used_with_the_same_credentials(
    keystone: Callable[[list[int]], str], clouds: Callable[[str], Path], asked: list[str]
) -> None:
    file = clouds(keystone([201]))
    connect(Module(file))
    file.write_text(file.read_text().replace("username: admin", "username: other"))
    connect(Module(file))
    config = yaml.safe_load(file.read_text())
    config["clouds"]["admin"]["auth"]["password"] = "wrong"
    file.write_text(yaml.safe_dump(config))
    connect(Module(file))
    assert asked == ["LOGIN"] * 3


def test_a_dry_run_keeps_no_token(
    keystone: Callable[[list[int]], str], clouds: Callable[[str], Path], tokens: Path
) -> None:
    module = Module(clouds(keystone([201])))
    module.check_mode = True
    connect(module)
    assert not tokens.parent.exists()


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


def test_entry_points_are_not_searched_in_the_module_archive(
    keystone: Callable[[list[int]], str],
    clouds: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # For each new sys.path, stevedore would read all packages again and keep another file.
    archive = tmp_path / "module.zip"
    archive.write_bytes(b"")
    monkeypatch.syspath_prepend(str(archive))
    looked_in: list[list[str]] = []
    get_one = OpenStackConfig.get_one

    def seen(self: Any, *args: Any, **options: Any) -> Any:
        looked_in.append(sys.path[:])
        return get_one(self, *args, **options)

    monkeypatch.setattr(OpenStackConfig, "get_one", seen)
    connect(Module(clouds(keystone([201]))))
    assert [str(archive) in path for path in looked_in] == [False]
    assert str(archive) in sys.path


def test_secrets_are_found_at_any_depth() -> None:
    config = {"auth": {"password": "a", "username": "b", "application_credential_secret": "c"}, "token": "d", "n": 1}
    assert set(secrets_in(config)) == {"a", "c", "d"}


def test_metrics_are_registered_before_threads_need_them(
    keystone: Callable[[list[int]], str], clouds: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """openstacksdk registers each once, without a lock: "Duplicated timeseries in CollectorRegistry" in two threads."""
    made: list[str] = []
    registry = SimpleNamespace()

    def collector(name: str, *arguments: Any, **options: Any) -> object:
        made.append(name)
        return object()

    monkeypatch.setattr(cloud_region, "prometheus_client", SimpleNamespace(Histogram=collector, Counter=collector))
    monkeypatch.setattr(cloud_region.CloudRegion, "get_prometheus_registry", lambda self: registry)
    connection = connect(Module(clouds(keystone([201]))))
    assert len(made) == 2
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda name: getattr(connection.config, name)(), ["get_prometheus_histogram"] * 4))
    assert len(made) == 2
