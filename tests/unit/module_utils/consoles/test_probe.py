# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The console probe against a console proxy in the test: a page, a WebSocket, one valid token."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.kilonova.consoles import probe as console_probe
from ansible.module_utils.kilonova.consoles import websocket as ws
from ansible.module_utils.kilonova.consoles.probe import ConsoleError

TOKEN = "2edc0136-e7ee-40c6-b99c-b31ae3d84577"
GOOD_PAGE = b"<html><title>noVNC</title></html>"
SCREEN = struct.pack("!HH", 720, 400) + bytes(16) + struct.pack("!I", 4) + b"QEMU"


class Proxy:
    """nova-novncproxy or nova-serialproxy. ``behaviour`` lists what is broken."""

    def __init__(self) -> None:
        self.behaviour: set[str] = set()
        self.tokens = {TOKEN}
        self.kind = "novnc"
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._serving: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for serving in self._serving:
            serving.join()

    @property
    def url(self) -> str:
        if self.kind == "serial":
            return f"ws://127.0.0.1:{self.port}/?token={TOKEN}"
        return f"http://127.0.0.1:{self.port}/vnc_auto.html?path=%3Ftoken%3D{TOKEN}"

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            # Like the proxies: one that hangs does not keep the others waiting.
            serving = threading.Thread(target=self._attend, args=(client,))
            self._serving.append(serving)
            serving.start()

    def _attend(self, client: socket.socket) -> None:
        with client:
            client.settimeout(1)
            try:
                self._answer(client)
            except OSError:
                return  # The client has seen enough.

    def _answer(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        lines = head.decode().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        if "Upgrade" not in fields:
            page = b"<html>It works</html>" if "page" in self.behaviour else GOOD_PAGE
            client.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + page)
            return
        if "500" in self.behaviour and TOKEN not in lines[0]:
            client.sendall(b"HTTP/1.1 500 Broken\r\n\r\n")
            return
        assert fields["Origin"].startswith("http://127.0.0.1")
        key = ws.accept_key(fields["Sec-WebSocket-Key"])
        protocol = "Sec-WebSocket-Protocol: binary\r\n"
        client.sendall(f"HTTP/1.1 101 Yes\r\nSec-WebSocket-Accept: {key}\r\n{protocol}\r\n".encode())
        if not any(f"token={token} " in lines[0] for token in self.tokens) and "anybody" not in self.behaviour:
            if "hangs" in self.behaviour:
                client.recv(100)
            return
        if self.kind == "serial":
            client.recv(100)
            client.sendall(ws.encode_frame(b"" if "mute" in self.behaviour else b"login: ", ws.BINARY, None))
            client.recv(100)
            return
        for part in (b"RFB 003.008\n", b"\1\1", bytes(4), SCREEN):
            client.sendall(ws.encode_frame(part, ws.BINARY, None))
        while client.recv(100):
            pass


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.close()


def probe(proxy: Proxy, **params: Any) -> dict[str, Any]:
    wanted = {"timeout": 0.5, "ca_file": None, "database_socket": "", "database": "nova"} | params
    hidden: set[str] = set()
    api = SimpleNamespace(post=lambda service, path, body: {"remote_console": {"url": proxy.url}})
    result = console_probe.probe(api, "s", proxy.kind, wanted, hidden.add)  # type: ignore[arg-type]
    assert hidden == {TOKEN}
    return result


def test_the_failure_of_one_console_names_it(proxy: Proxy) -> None:
    wanted = {"types": ["novnc"], "timeout": 1, "ca_file": None, "database_socket": "", "database": "nova"}
    api = SimpleNamespace(post=lambda service, path, body: {"remote_console": {"url": proxy.url}})
    assert set(console_probe.probe_all(api, "s", wanted, set().add)) == {"novnc"}  # type: ignore[arg-type]
    proxy.behaviour.add("page")
    with pytest.raises(ConsoleError) as caught:
        console_probe.probe_all(api, "s", wanted, set().add)  # type: ignore[arg-type]
    assert caught.value.layer == "noVNC console"


def test_novnc(proxy: Proxy) -> None:
    assert probe(proxy) == {
        "address": f"http://127.0.0.1:{proxy.port}/vnc_auto.html",
        "version": "003.008",
        "width": 720,
        "height": 400,
        "name": "QEMU",
        "wrong_token_refused": True,
    }


def test_serial(proxy: Proxy) -> None:
    proxy.kind = "serial"
    assert probe(proxy) == {
        "address": f"ws://127.0.0.1:{proxy.port}/",
        "text": "login: ",
        "wrong_token_refused": True,
    }


def test_expired_token_has_to_be_refused(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_probe, "expire_token", lambda token, *database: proxy.tokens.remove(token))
    assert probe(proxy, database_socket="/run/db.sock")["expired_token_refused"] is True


def test_expired_token_that_still_works(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_probe, "expire_token", lambda token, *database: None)
    with pytest.raises(ConsoleError, match="the console opens with an expired token: it sent b'RFB"):
        probe(proxy, database_socket="/run/db.sock")


@pytest.mark.parametrize(
    ("kind", "behaviour", "message"),
    [
        ("novnc", "page", "answered 200 with a page that is not noVNC's"),
        ("novnc", "anybody", "the console opens with a made-up token"),
        ("serial", "anybody", "the console opens with a made-up token"),
        ("novnc", "hangs", "with a made-up token the connection stays open"),
        ("novnc", "500", "with a made-up token the console fails instead of refusing: .* 500 Broken"),
        ("serial", "mute", "the guest printed nothing on its serial console"),
    ],
)
def test_failures_are_explained(proxy: Proxy, kind: str, behaviour: str, message: str) -> None:
    proxy.kind = kind
    proxy.behaviour = {behaviour}
    with pytest.raises(ConsoleError, match=message) as failure:
        probe(proxy)
    assert TOKEN not in str(failure.value)


def test_token_that_is_not_known_to_the_proxy(proxy: Proxy) -> None:
    proxy.tokens.clear()
    with pytest.raises(ConsoleError, match="does not lead to the console: the peer closed the connection"):
        probe(proxy)


@pytest.mark.parametrize(
    ("url", "token", "opened", "origin"),
    [
        ("http://h:6080/vnc_auto.html?path=%3Ftoken%3Dabc", "abc", "ws://h:6080/?token=abc", "http://h:6080"),
        ("https://h/vnc_lite.html?path=?token=abc", "abc", "wss://h/?token=abc", "https://h"),
        (
            "https://h:6080/vnc.html?autoconnect=true&resize=scale&path=%3Ftoken%3Dabc",
            "abc",
            "wss://h:6080/?token=abc",
            "https://h:6080",
        ),
        ("http://h:6080/vnc_auto.html?token=abc", "abc", "ws://h:6080/?token=abc", "http://h:6080"),
        ("ws://h:6083/?token=abc", "abc", "ws://h:6083/?token=abc", "http://h:6083"),
        ("wss://h/serial?token=abc", "abc", "wss://h/serial?token=abc", "https://h"),
    ],
)
def test_addresses(url: str, token: str, opened: str, origin: str) -> None:
    assert console_probe.token_of(url) == token
    assert console_probe.socket_url(url, token) == opened
    assert console_probe.origin_of(url) == origin
    assert "abc" not in console_probe.bare(url)


def test_address_without_token() -> None:
    with pytest.raises(ConsoleError, match="no token"):
        console_probe.token_of("http://h/vnc_auto.html?path=websockify")
