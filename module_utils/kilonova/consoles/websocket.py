# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A WebSocket client with as much of RFC 6455 as a console needs.

The hosts have no package with a client, and Nova's consoles speak only WebSocket.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
MAX_HEADER_BYTES = 65536
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class WebSocketError(Exception):
    """The peer does not speak the protocol, or the connection broke."""


class HandshakeRefused(WebSocketError):
    """The server answered the handshake with a status other than 101."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"the server answered the WebSocket handshake with {status} {reason}")
        self.status = status


class WebSocket:
    """A client connection. ``timeout`` limits the setup and each later call."""

    def __init__(
        self,
        url: str,
        *,
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
        timeout: float = 10.0,
        ca_file: str | None = None,
    ) -> None:
        parts = urlsplit(url)
        secure = {"ws": False, "http": False, "wss": True, "https": True}.get(parts.scheme)
        if secure is None or not parts.hostname:
            raise ValueError(f"not a ws:// or wss:// URL: {parts.scheme}://{parts.netloc}")
        self.timeout = timeout
        self.subprotocol: str | None = None
        self.close_code: int | None = None
        self.closed = False
        self._buffer = b""
        self._stream = b""
        port = parts.port or (443 if secure else 80)
        deadline = time.monotonic() + timeout
        try:
            self._socket = socket.create_connection((parts.hostname, port), timeout)
        except OSError as error:
            raise WebSocketError(f"no TCP connection to {parts.hostname}:{port}: {error}") from error
        try:
            if secure:
                context = ssl.create_default_context(cafile=ca_file)
                self._socket = context.wrap_socket(self._socket, server_hostname=parts.hostname)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            self._handshake(target, parts.netloc, subprotocols, origin, deadline)
        except OSError as error:
            self._socket.close()
            raise WebSocketError(f"the connection to {parts.hostname}:{port} broke: {error}") from error
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Messages

    def send(self, data: bytes, opcode: int = BINARY) -> None:
        """Send a message in one frame, masked as required of clients (RFC 6455, 5.1)."""
        self._socket.settimeout(self.timeout)
        try:
            self._socket.sendall(encode_frame(data, opcode, os.urandom(4)))
        except OSError as error:
            raise WebSocketError(f"sending failed: {error}") from error

    def receive(self, timeout: float | None = None) -> bytes | None:
        """Return the next message, None when the peer closed the connection. TimeoutError when none comes."""
        if self.closed:
            return None
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        message = b""
        while True:
            frame = self._frame(deadline)
            if frame is None:
                self.closed = True
                return None
            final, opcode, payload = frame
            if opcode == CLOSE:
                self._answer_close(payload)
                return None
            if opcode == PING:
                self.send(payload, PONG)
            elif opcode != PONG:
                message += payload
                if len(message) > MAX_MESSAGE_BYTES:
                    raise WebSocketError(f"a message of more than {MAX_MESSAGE_BYTES} bytes")
                if final:
                    return message

    def read(self, count: int) -> bytes:
        """Return exactly ``count`` bytes from the messages. WebSocketError when the connection ends before."""
        while len(self._stream) < count:
            message = self.receive()
            if message is None:
                code = f" with code {self.close_code}" if self.close_code else ""
                raise WebSocketError(f"the peer closed the connection{code} after {len(self._stream)} of {count} bytes")
            self._stream += message
        taken, self._stream = self._stream[:count], self._stream[count:]
        return taken

    def close(self) -> None:
        """Send a close frame and close the socket. May be called twice."""
        if not self.closed:
            self.closed = True
            with contextlib.suppress(OSError):  # The peer may have closed already.
                self._socket.sendall(encode_frame(struct.pack("!H", 1000), CLOSE, os.urandom(4)))
        self._socket.close()

    # Below messages

    def _handshake(
        self, target: str, host: str, subprotocols: Sequence[str], origin: str | None, deadline: float
    ) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {target} HTTP/1.1",
            f"Host: {host.rpartition('@')[2]}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        ]
        if origin:
            lines.append(f"Origin: {origin}")
        if subprotocols:
            lines.append(f"Sec-WebSocket-Protocol: {', '.join(subprotocols)}")
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        while b"\r\n\r\n" not in self._buffer:
            if len(self._buffer) > MAX_HEADER_BYTES:
                raise WebSocketError("the answer to the WebSocket handshake has no end of headers")
            if not self._fill(deadline):
                raise WebSocketError("the server closed the connection during the WebSocket handshake")
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        status, reason, headers = parse_response(head.decode("latin-1"))
        if status != 101:
            raise HandshakeRefused(status, reason)
        if headers.get("sec-websocket-accept") != accept_key(key):
            raise WebSocketError("the answer's Sec-WebSocket-Accept does not belong to the key: not a WebSocket server")
        self.subprotocol = headers.get("sec-websocket-protocol")
        if self.subprotocol and self.subprotocol not in subprotocols:
            raise WebSocketError(f"the server chose the subprotocol '{self.subprotocol}', which was not offered")

    def _fill(self, deadline: float) -> bool:
        """Read once into the buffer. Returns False at the end of the stream."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("nothing came in time")
        self._socket.settimeout(left)
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            raise TimeoutError("nothing came in time") from None
        except ConnectionResetError:
            return False
        self._buffer += data
        return bool(data)

    def _take(self, count: int, deadline: float) -> bytes | None:
        while len(self._buffer) < count:
            if not self._fill(deadline):
                return None
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _frame(self, deadline: float) -> tuple[bool, int, bytes] | None:
        head = self._take(2, deadline)
        if head is None:
            return None
        length = head[1] & 0x7F
        if head[1] & 0x80:
            raise WebSocketError("the server masked a frame, which only a client may do")
        if length in (126, 127):
            extended = self._take(2 if length == 126 else 8, deadline)
            if extended is None:
                return None
            length = int.from_bytes(extended, "big")
        if length > MAX_MESSAGE_BYTES:
            raise WebSocketError(f"a frame of {length} bytes, more than {MAX_MESSAGE_BYTES}")
        payload = self._take(length, deadline)
        if payload is None:
            return None
        return bool(head[0] & 0x80), head[0] & 0x0F, payload

    def _answer_close(self, payload: bytes) -> None:
        if len(payload) >= 2:
            self.close_code = int.from_bytes(payload[:2], "big")
        self.close()


def accept_key(key: str) -> str:
    """Return the answer to a client's key (RFC 6455, 4.2.2)."""
    return base64.b64encode(hashlib.sha1((key + GUID).encode(), usedforsecurity=False).digest()).decode()


def encode_frame(data: bytes, opcode: int, mask: bytes | None) -> bytes:
    """Return one final frame, masked when a mask of four bytes is given."""
    bit = 0x80 if mask else 0
    if len(data) < 126:
        head = bytes([0x80 | opcode, bit | len(data)])
    elif len(data) < 65536:
        head = bytes([0x80 | opcode, bit | 126]) + struct.pack("!H", len(data))
    else:
        head = bytes([0x80 | opcode, bit | 127]) + struct.pack("!Q", len(data))
    if not mask:
        return head + data
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))


def parse_response(head: str) -> tuple[int, str, dict[str, str]]:
    """Return status, reason and lower-cased headers of an HTTP answer. WebSocketError for anything else."""
    first, *lines = head.split("\r\n")
    version, _, rest = first.partition(" ")
    code, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/") or not code.isdigit():
        raise WebSocketError(f"not an HTTP answer: {first[:80]!r}")
    pairs = (line.partition(":") for line in lines)
    return int(code), reason, {name.strip().lower(): value.strip() for name, _, value in pairs}
