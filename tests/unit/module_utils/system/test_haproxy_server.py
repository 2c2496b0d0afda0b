# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A server is taken out of an HAProxy that answers on a socket, and put back."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system import haproxy_server
from ansible.module_utils.testing import patch_module_args


class Proxy:
    """Stands for HAProxy: servers with states and sessions."""

    def __init__(self, path: Path) -> None:
        self.path, self.commands = path, list[str]()
        self.servers = {(proxy, name): ["UP", 0] for proxy in ("keystone", "nova", "db") for name in ("ctl1", "ctl2")}
        self.tracked = dict[str, str]()
        self.out = set[tuple[str, str]]()
        self.after: list[Any] = []
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(self.answer(connection.recv(4096).decode().strip()).encode())

    def answer(self, text: str) -> str:
        self.commands.append(text)
        if text == "show stat":
            if self.after and len(self.commands) > 3:
                self.after.pop()(self.servers)
            lines = [
                f"{proxy},{name},{now},{status},{self.tracked.get(proxy, '')}"
                for (proxy, name), (status, now) in self.servers.items()
            ]
            return "\n".join(["# pxname,svname,scur,status,tracked", *lines]) + "\n"
        _, _, where, what, state = text.split()
        proxy, _, name = where.partition("/")
        if what == "health":
            self.servers[proxy, name][0] = "DOWN"
            return "\n"
        self.out = self.out | {(proxy, name)} if state == "drain" else self.out - {(proxy, name)}
        # As in HAProxy, a server that is down shows that only.
        if not str(self.servers[proxy, name][0]).startswith("DOWN"):
            self.up(proxy, name)
        return "\n"

    def up(self, *server: str) -> None:
        self.servers[server[0], server[1]][0] = "DRAIN" if server in self.out else "UP"


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    one = Proxy(tmp_path / "admin.sock")
    yield one
    one.listener.close()


def run(capsys: pytest.CaptureFixture[str], path: Path, **arguments: Any) -> dict[str, Any]:
    given = {"names": ["ctl2"], "proxies": ["keystone", "nova"], "socket": str(path), "timeout": 2.0} | arguments
    with patch_module_args(given), pytest.raises(SystemExit):
        haproxy_server.run(AnsibleModule(argument_spec=haproxy_server.ARGUMENT_SPEC, supports_check_mode=True))
    return dict(json.loads(capsys.readouterr().out))


def test_a_server_is_drained_once_and_put_back(proxy: Proxy, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, proxy.path, state="drained", _ansible_check_mode=True)["changed"] is True
    assert proxy.servers["nova", "ctl2"][0] == "UP"
    assert run(capsys, proxy.path, state="drained")["servers"] == ["keystone/ctl2", "nova/ctl2"]
    assert {key for key, (status, _) in proxy.servers.items() if status == "DRAIN"} == {
        ("keystone", "ctl2"),
        ("nova", "ctl2"),
    }
    assert run(capsys, proxy.path, state="drained")["changed"] is False
    assert run(capsys, proxy.path, state="ready")["changed"] is True
    assert {status for status, _ in proxy.servers.values()} == {"UP"}
    assert run(capsys, proxy.path, state="ready")["changed"] is False


def test_requests_in_progress_are_waited_for(proxy: Proxy, capsys: pytest.CaptureFixture[str]) -> None:
    proxy.servers["nova", "ctl2"][1] = 1
    proxy.after = [lambda servers: servers["nova", "ctl2"].__setitem__(1, 0), lambda servers: None]
    assert run(capsys, proxy.path, state="drained")["unfinished"] == []
    proxy.servers["nova", "ctl2"][1] = 1
    assert run(capsys, proxy.path, state="drained", timeout=0.3)["unfinished"] == ["nova/ctl2"]


def test_one_that_tracks_another_is_waited_for_only(proxy: Proxy, capsys: pytest.CaptureFixture[str]) -> None:
    proxy.tracked = {"nova-writes": "nova/ctl2"}
    proxy.servers["nova-writes", "ctl2"] = ["UP", 1]
    found = run(capsys, proxy.path, state="drained", proxies=["nova", "nova-writes"], timeout=0.3)
    assert (found["servers"], found["unfinished"]) == (["nova/ctl2"], ["nova-writes/ctl2"])
    assert not [said for said in proxy.commands if said.startswith("set server nova-writes")]


def test_a_server_that_is_not_up_again_is_named(proxy: Proxy, capsys: pytest.CaptureFixture[str]) -> None:
    proxy.servers["nova", "ctl2"][0] = "DOWN 1/2"
    found = run(capsys, proxy.path, state="ready", timeout=0.3)
    assert not run(capsys, proxy.path, state="ready", timeout=0).get("failed")
    assert found["failed"] and "up after 0.3 s: nova/ctl2 (DOWN 1/2)" in found["msg"]


def test_a_server_that_was_drained_and_went_down_is_put_back(proxy: Proxy, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, proxy.path, state="drained")
    proxy.servers["nova", "ctl2"][0] = "DOWN"
    proxy.after = [lambda servers: proxy.up("nova", "ctl2"), lambda servers: None]
    assert run(capsys, proxy.path, state="ready")["unfinished"] == []
    assert proxy.servers["nova", "ctl2"][0] == "UP"


def test_an_haproxy_that_does_not_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, tmp_path / "none.sock", state="ready")
    assert found["failed"] and "HAProxy does not answer at" in found["msg"]
    assert run(capsys, tmp_path / "none.sock", state="ready", _ansible_check_mode=True)["changed"] is False


def test_one_in_maintenance_counts_as_ready_and_as_idle(proxy: Proxy, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("keystone", "nova"):
        proxy.servers[name, "ctl2"][0] = "NOLB 1/1"
    for state in ("ready", "idle"):
        found = run(capsys, proxy.path, state=state)
        assert not found.get("failed") and found["changed"] is False
    assert proxy.commands == ["show stat"] * len(proxy.commands)
    found = run(capsys, proxy.path, state="serving", timeout=0.3)
    assert found["failed"] and "nova/ctl2 (NOLB 1/1)" in found["msg"]


def test_health_is_forgotten_and_found_again(proxy: Proxy, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, proxy.path, state="checked", timeout=0.3)["failed"]

    def answer(servers: dict[tuple[str, str], list[Any]]) -> None:
        for server in servers:
            proxy.up(*server)

    proxy.after = [answer, lambda servers: None]
    found = run(capsys, proxy.path, state="checked")
    assert not found.get("failed") and found["changed"] is False
    assert "set server nova/ctl2 health down" in proxy.commands
    run(capsys, proxy.path, state="checked", _ansible_check_mode=True)
    assert proxy.servers["nova", "ctl2"][0] == "UP"


def test_idle_and_serving_wait_and_tell_nothing(proxy: Proxy, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, proxy.path, state="idle", timeout=0.3)
    assert found["failed"] and "still sends requests to these servers after 0.3 s: keystone/ctl2 (UP)" in found["msg"]
    proxy.servers["nova", "ctl2"] = proxy.servers["keystone", "ctl2"] = ["DOWN", 2]
    assert run(capsys, proxy.path, state="idle", timeout=0.3)["unfinished"] == ["keystone/ctl2", "nova/ctl2"]
    assert run(capsys, proxy.path, state="serving", timeout=0.3)["failed"]
    proxy.servers["nova", "ctl2"] = proxy.servers["keystone", "ctl2"] = ["UP", 2]
    assert not run(capsys, proxy.path, state="serving").get("failed")
    assert {text for text in proxy.commands} == {"show stat"}
