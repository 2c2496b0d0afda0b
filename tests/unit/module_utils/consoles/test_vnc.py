# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The opening of a VNC session, against recorded bytes."""

from __future__ import annotations

import struct

import pytest
from ansible.module_utils.kilonova.consoles.vnc import VncError, open_session


class Recording:
    """A peer whose answers are recorded."""

    def __init__(self, said: bytes) -> None:
        self.said = said
        self.sent = b""

    def read(self, count: int) -> bytes:
        assert len(self.said) >= count, "the client waits for something that never comes"
        taken, self.said = self.said[:count], self.said[count:]
        return taken

    def send(self, data: bytes) -> None:
        self.sent += data


SCREEN = struct.pack("!HH", 720, 400) + bytes(16) + struct.pack("!I", 4) + b"QEMU"


def test_session_opens() -> None:
    peer = Recording(b"RFB 003.008\n" + b"\2\2\1" + bytes(4) + SCREEN)
    assert open_session(peer) == {"version": "003.008", "width": 720, "height": 400, "name": "QEMU"}
    assert peer.sent == b"RFB 003.008\n\1\1"
    assert peer.said == b""


def reason(text: str) -> bytes:
    return struct.pack("!I", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (b"HTTP/1.1 400", "a VNC greeting was expected"),
        (b"RFB 003.003\n", "speaks VNC 003.003"),
        (b"RFB 003.008\n\0" + reason("too many clients"), "refuses the session: too many clients"),
        (b"RFB 003.008\n\1\2", r"security types \[2\]"),
        (b"RFB 003.008\n\1\1\0\0\0\1" + reason("no"), "refuses the session: no"),
    ],
)
def test_no_session(said: bytes, message: str) -> None:
    with pytest.raises(VncError, match=message):
        open_session(Recording(said))
