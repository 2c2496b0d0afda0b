# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The WebSocket client, against servers on a local socket with scripted answers."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from ansible.module_utils.kilonova.consoles import websocket as ws

Session = Callable[[socket.socket, dict[str, str]], None]


def read_head(client: socket.socket) -> dict[str, str]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(4096)
    first, *lines = data.split(b"\r\n\r\n")[0].decode().split("\r\n")
    return {"request": first} | {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def accept(client: socket.socket, head: dict[str, str], extra: str = "") -> None:
    key = ws.accept_key(head["sec-websocket-key"])
    client.sendall(
        f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {key}\r\n{extra}\r\n".encode()
    )


def read_frame(client: socket.socket) -> tuple[int, bytes]:
    """One short frame of a client, unmasked."""
    first, second = client.recv(1)[0], client.recv(1)[0]
    assert second & 0x80, "a client has to mask its frames"
    length = second & 0x7F
    if length == 126:
        length = struct.unpack("!H", client.recv(2))[0]
    mask, data = client.recv(4), b""
    while len(data) < length:
        data += client.recv(length - len(data))
    return first & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))


@contextmanager
def server(session: Session) -> Iterator[str]:
    """A server for one connection. An error in its session fails the test."""
    problems: list[BaseException] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        try:
            client, _ = listener.accept()
            with client:
                client.settimeout(5)
                session(client, read_head(client))
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"ws://127.0.0.1:{listener.getsockname()[1]}/console?token=a"
    thread.join(5)
    listener.close()
    assert not problems, problems


def test_accept_key_is_that_of_the_rfc() -> None:
    assert ws.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_frames_of_every_length_form_arrive(size: int) -> None:
    data = bytes(index % 251 for index in range(size))

    def session(client: socket.socket, head: dict[str, str]) -> None:
        accept(client, head)
        client.sendall(ws.encode_frame(data, ws.BINARY, None))

    with server(session) as url, ws.WebSocket(url) as console:
        assert console.receive() == data


def test_handshake_says_what_a_browser_says() -> None:
    seen: dict[str, str] = {}

    def session(client: socket.socket, head: dict[str, str]) -> None:
        seen.update(head)
        accept(client, head, "Sec-WebSocket-Protocol: binary\r\n")

    with server(session) as url, ws.WebSocket(url, subprotocols=["binary"], origin="http://nova") as console:
        assert console.subprotocol == "binary"
        assert console.receive() is None
    assert seen["request"] == "GET /console?token=a HTTP/1.1"
    assert seen["origin"] == "http://nova"
    assert seen["sec-websocket-version"] == "13"
    assert seen["host"].startswith("127.0.0.1:")


def test_messages_are_put_together_and_pings_answered() -> None:
    answered: list[tuple[int, bytes]] = []

    def session(client: socket.socket, head: dict[str, str]) -> None:
        accept(client, head)
        client.sendall(bytes([ws.BINARY, 3]) + b"RFB")
        client.sendall(ws.encode_frame(b"still there?", ws.PING, None))
        client.sendall(bytes([0x80 | ws.CONTINUATION, 9]) + b" 003.008\n")
        answered.append(read_frame(client))

    with server(session) as url, ws.WebSocket(url) as console:
        assert console.read(3) == b"RFB"
        assert console.read(9) == b" 003.008\n"
    assert answered == [(ws.PONG, b"still there?")]


def test_what_is_sent_arrives_unmasked() -> None:
    got: list[tuple[int, bytes]] = []

    def session(client: socket.socket, head: dict[str, str]) -> None:
        accept(client, head)
        got.append(read_frame(client))
        got.append(read_frame(client))

    with server(session) as url:
        console = ws.WebSocket(url)
        console.send(b"\n" * 300)
        console.close()
    assert got == [(ws.BINARY, b"\n" * 300), (ws.CLOSE, struct.pack("!H", 1000))]


def test_close_of_the_peer_ends_the_stream_with_its_code() -> None:
    def session(client: socket.socket, head: dict[str, str]) -> None:
        accept(client, head)
        client.sendall(ws.encode_frame(struct.pack("!H", 1011) + b"no", ws.CLOSE, None))

    with server(session) as url, ws.WebSocket(url) as console:
        with pytest.raises(ws.WebSocketError, match="with code 1011 after 0 of 12 bytes"):
            console.read(12)
        assert console.close_code == 1011
        assert console.receive() is None


def test_silence_is_a_timeout() -> None:
    def session(client: socket.socket, head: dict[str, str]) -> None:
        accept(client, head)
        client.recv(100)

    with server(session) as url, ws.WebSocket(url) as console, pytest.raises(TimeoutError):
        console.receive(timeout=0.1)


def answer(text: str) -> Session:
    return lambda client, head: client.sendall(text.encode())


@pytest.mark.parametrize(
    ("session", "message"),
    [
        (answer("HTTP/1.1 403 Forbidden\r\n\r\n"), "403 Forbidden"),
        (answer("SSH-2.0-OpenSSH\r\n\r\n"), "not an HTTP answer"),
        (answer("HTTP/1.1 101 OK\r\nSec-WebSocket-Accept: x\r\n\r\n"), "not a WebSocket server"),
        (answer("HTTP/1.1 101"), "closed the connection during"),
        (
            lambda client, head: accept(client, head, "Sec-WebSocket-Protocol: chat\r\n"),
            "'chat', which was not offered",
        ),
    ],
)
def test_no_websocket_server(session: Session, message: str) -> None:
    with server(session) as url, pytest.raises(ws.WebSocketError, match=message):
        ws.WebSocket(url)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (ws.encode_frame(b"a", ws.BINARY, b"abcd"), "masked"),
        (bytes([0x82, 127]) + struct.pack("!Q", 2**40), "more than"),
    ],
)
def test_frames_that_no_server_may_send(frame: bytes, message: str) -> None:
    def session(client: socket.socket, head: dict[str, str]) -> None:
        accept(client, head)
        client.sendall(frame)

    with server(session) as url, ws.WebSocket(url) as console, pytest.raises(ws.WebSocketError, match=message):
        console.receive()


def test_connection_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ws.WebSocketError, match=f"no TCP connection to 127.0.0.1:{port}"):
        ws.WebSocket(f"ws://127.0.0.1:{port}/")


def test_other_addresses_are_refused_without_their_query() -> None:
    with pytest.raises(ValueError, match="not a ws:// or wss:// URL: ftp://a") as refusal:
        ws.WebSocket("ftp://a/?token=secret")
    assert "secret" not in str(refusal.value)
