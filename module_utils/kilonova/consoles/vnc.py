# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Open a VNC session (RFC 6143, section 7), up to the name of the screen."""

from __future__ import annotations

import re
import struct
from typing import Any, Protocol

GREETING_BYTES = 12
SECURITY_NONE = 1
MAX_TEXT_BYTES = 65536


class Stream(Protocol):
    """The connection of a session, such as a WebSocket."""

    def read(self, count: int) -> bytes: ...

    def send(self, data: bytes) -> None: ...


class VncError(Exception):
    """The peer is not a VNC server, or refuses the session."""


def open_session(stream: Stream) -> dict[str, Any]:
    """Complete the handshake and return version, width, height and name of the screen.

    The session is shared, so others who have the console open keep it.
    """
    greeting = stream.read(GREETING_BYTES)
    match = re.fullmatch(rb"RFB (\d{3}\.\d{3})\n", greeting)
    if not match:
        raise VncError(f"the console sent {greeting!r} where a VNC greeting was expected")
    version = match[1].decode()
    if version < "003.008":
        raise VncError(f"the console speaks VNC {version}; 003.008 is needed")
    stream.send(b"RFB 003.008\n")
    types = stream.read(stream.read(1)[0])
    if not types:
        raise VncError(f"the console refuses the session: {_text(stream)}")
    if SECURITY_NONE not in types:
        raise VncError(f"the console offers the security types {list(types)}, not 1 (none)")
    stream.send(bytes([SECURITY_NONE]))
    if stream.read(4) != b"\0\0\0\0":
        raise VncError(f"the console refuses the session: {_text(stream)}")
    stream.send(b"\1")
    width, height = struct.unpack("!HH", stream.read(4))
    stream.read(16)  # The pixel format.
    return {"version": version, "width": width, "height": height, "name": _text(stream)}


def _text(stream: Stream) -> str:
    length = int.from_bytes(stream.read(4), "big")
    return stream.read(min(length, MAX_TEXT_BYTES)).decode("utf-8", "replace")
