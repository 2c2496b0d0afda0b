# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ask sockets which certificates they serve, and how long those are valid."""

from __future__ import annotations

import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

TIMEOUT = 5.0
POLL_SECONDS = 0.5
DAY = 86400
# After which a run of site.yml is overdue: runs replace certificates that have a third of their life left.
LEAST_DAYS = 7
OPTIONS: dict[str, Any] = {
    "title": {"type": "str", "required": True},
    "unit": {"type": "str", "required": True},
    "address": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "authority": {"type": "path", "required": True},
    "certificate": {"type": "path"},
    "key": {"type": "path"},
    "farewell": {"type": "str"},
}


@dataclass(frozen=True)
class Found:
    """What a socket serves: whole days until its certificate ends, or why that is not known."""

    title: str
    unit: str
    days: int | None
    problem: str = ""
    refused: bool = False  # nothing listens

    @property
    def reason(self) -> str:
        """Say what is wrong, "" for nothing."""
        if self.refused:
            return f"does not listen at {self.problem}"
        if self.problem:
            return f"serves no certificate that can be trusted ({self.problem})"
        if self.days is not None and self.days < LEAST_DAYS:
            return f"serves a certificate that ends in {self.days} days"
        return ""


def ask(
    title: str,
    unit: str,
    address: str,
    port: int,
    authority: str,
    certificate: str | None = None,
    key: str | None = None,
    farewell: str | None = None,
) -> Found:
    """Ask one socket, with a certificate where it wants one. Names are not compared: an address may have several.

    farewell: what lets the server end the connection, in hexadecimal.
    """
    try:
        context = ssl.create_default_context(cafile=authority)
        context.check_hostname = False
        if certificate:
            context.load_cert_chain(certificate, key)
        with (
            socket.create_connection((address, port), TIMEOUT) as connection,
            context.wrap_socket(connection, server_hostname=address) as secure,
        ):
            served = secure.getpeercert() or {}
            if farewell:
                secure.sendall(bytes.fromhex(farewell))
                while secure.recv(1024):
                    pass
    except ssl.SSLCertVerificationError as error:
        return Found(title, unit, None, error.verify_message)
    except ConnectionRefusedError:
        return Found(title, unit, None, f"{address}:{port}", refused=True)
    except (OSError, ValueError) as error:
        return Found(title, unit, None, str(error))
    end = ssl.cert_time_to_seconds(str(served["notAfter"]))
    return Found(title, unit, int((end - time.time()) // DAY))


def ask_all(sockets: list[dict[str, Any]], patience: float = 0.0) -> list[Found]:
    """Ask all sockets at once. Where nothing listens, wait for it for as long as the patience, in seconds."""
    end = time.monotonic() + patience

    def ask_until(one: dict[str, Any]) -> Found:
        while (found := ask(**one)).refused and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        return found

    with ThreadPoolExecutor(max(1, len(sockets))) as pool:
        return list(pool.map(ask_until, sockets))
