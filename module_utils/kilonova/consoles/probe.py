# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Open a server's consoles as a browser does. Used by guest_probe."""

from __future__ import annotations

import hashlib
import ssl
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from ansible.module_utils.kilonova.cloud.api import CloudApi, answered
from ansible.module_utils.kilonova.consoles.vnc import VncError, open_session
from ansible.module_utils.kilonova.consoles.websocket import HandshakeRefused, WebSocket, WebSocketError
from ansible.module_utils.kilonova.system.background import Background

CONSOLE_ARGUMENTS: dict[str, dict[str, Any]] = {
    "types": {"type": "list", "elements": "str", "default": ["novnc"], "choices": ["novnc", "serial"]},
    "timeout": {"type": "int", "default": 20},
    "ca_file": {"type": "path"},
    "database_socket": {"type": "str", "default": ""},
    "database": {"type": "str", "default": "nova"},
}
LAYERS = {"novnc": "noVNC console", "serial": "serial console"}
PROTOCOLS = {"novnc": "vnc", "serial": "serial"}
PAGE_BYTES = 65536
SERIAL_TEXT = 400


class ConsoleError(Exception):
    """A console failed. ``layer`` is the part of the cloud to blame."""

    layer = ""


def token_of(url: str) -> str:
    """Return the token in a console address. For noVNC it is inside of the query's ``path``."""
    query = parse_qs(urlsplit(url).query)
    if "token" in query:
        return query["token"][0]
    for path in query.get("path", []):
        token = parse_qs(urlsplit(path).query or path.lstrip("/?")).get("token")
        if token:
            return token[0]
    raise ConsoleError("Nova's console address has no token in it")


def socket_url(url: str, token: str) -> str:
    """Return the WebSocket address for a console address and a token."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    path = parts.path if scheme == parts.scheme else "/"
    return urlunsplit((scheme, parts.netloc, path or "/", f"token={quote(token, safe='')}", ""))


def origin_of(url: str) -> str:
    """Return the ``Origin`` that a browser sends for an address."""
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    return f"{scheme}://{parts.netloc}"


def bare(url: str) -> str:
    """Return the address without its query, which contains the token."""
    return urlunsplit((*urlsplit(url)[:3], "", ""))


def check_page(url: str, timeout: float, ca_file: str | None) -> None:
    """Check that the page answers 200 and is noVNC's."""
    context = ssl.create_default_context(cafile=ca_file) if url.startswith("https:") else None
    try:
        with urlopen(Request(url, headers={"Accept": "text/html"}), timeout=timeout, context=context) as answer:
            page = answer.read(PAGE_BYTES).decode("utf-8", "replace")
            status = answer.status
    except OSError as error:
        raise ConsoleError(f"the page {bare(url)} cannot be loaded: {error}") from error
    if status != 200 or "noVNC" not in page:
        raise ConsoleError(f"{bare(url)} answered {status} with a page that is not noVNC's: {page[:200]!r}")


def open_vnc(url: str, token: str, timeout: float, ca_file: str | None) -> dict[str, Any]:
    """Open the VNC session behind a token and describe it. WebSocketError or VncError when it does not open."""
    with _websocket(url, token, timeout, ca_file) as console:
        return open_session(console)


def open_serial(url: str, token: str, timeout: float, ca_file: str | None) -> dict[str, Any]:
    """Return what the guest prints on its serial console after a line feed. WebSocketError when it prints nothing."""
    text = b""
    with _websocket(url, token, timeout, ca_file) as console:
        console.send(b"\n")
        deadline = time.monotonic() + timeout
        while not text.strip():
            try:
                message = console.receive(timeout=max(0.1, deadline - time.monotonic()))
            except TimeoutError:
                raise WebSocketError(
                    f"the guest printed nothing on its serial console within {timeout:g} s of a line feed"
                ) from None
            if message is None:
                raise WebSocketError("the proxy closed the connection")
            text += message
    return {"text": text[-SERIAL_TEXT:].decode("utf-8", "replace")}


def check_refused(kind: str, url: str, token: str, what: str, timeout: float, ca_file: str | None) -> None:
    """Check that the console does not open: the handshake is refused, or the connection closed without data."""
    try:
        with _websocket(url, token, timeout, ca_file) as console:
            if kind == "serial":
                console.send(b"\n")
            first = console.receive()
    except HandshakeRefused as refusal:
        if refusal.status >= 500:
            raise ConsoleError(f"with {what} token the console fails instead of refusing: {refusal}") from refusal
        return
    except WebSocketError as error:
        raise ConsoleError(f"with {what} token the console cannot be reached: {error}") from error
    except TimeoutError:
        raise ConsoleError(
            f"with {what} token the connection stays open; it has to be closed within {timeout:g} s"
        ) from None
    if first is not None:
        raise ConsoleError(f"the console opens with {what} token: it sent {first[:20]!r}")


def expire_token(token: str, database_socket: str, database: str) -> None:
    """Make a token expire in the cell database, which stores its sha256."""
    try:
        import pymysql
    except ImportError as error:
        raise ConsoleError("python3-pymysql is not installed on this host, and database_socket needs it") from error
    digest = hashlib.sha256(token.encode()).hexdigest()
    try:
        link = pymysql.connect(unix_socket=database_socket, user="root", database=database)
        with link, link.cursor() as cursor:
            rows = cursor.execute(
                "UPDATE console_auth_tokens SET expires = %s WHERE token_hash = %s", (int(time.time()) - 1, digest)
            )
            link.commit()
    except pymysql.MySQLError as error:
        raise ConsoleError(f"the token cannot be made to expire in the database: {error}") from error
    if rows != 1:
        raise ConsoleError(f"{rows} tokens of this console are in the database '{database}', not 1")


def probe(
    api: CloudApi, server: str, kind: str, wanted: dict[str, Any], hide: Callable[[str], object]
) -> dict[str, Any]:
    """Run all checks of one console. ``wanted`` has CONSOLE_ARGUMENTS; ``hide`` takes the token, to mask it."""
    timeout, ca_file = float(wanted["timeout"]), wanted["ca_file"]
    body = {"remote_console": {"protocol": PROTOCOLS[kind], "type": kind}}
    answer = answered(lambda: api.post("compute", f"/servers/{server}/remote-consoles", body), timeout)
    url = str(answer["remote_console"]["url"])
    token = token_of(url)
    hide(token)
    result: dict[str, Any] = {"address": bare(url)}
    refusal = Background(lambda: check_refused(kind, url, str(uuid.uuid4()), "a made-up", timeout, ca_file))
    try:
        if kind == "novnc":
            check_page(url, timeout, ca_file)
            result |= open_vnc(url, token, timeout, ca_file)
        else:
            result |= open_serial(url, token, timeout, ca_file)
    except TimeoutError:
        raise ConsoleError(f"{bare(url)} accepts the connection, but sends nothing within {timeout:g} s") from None
    except (WebSocketError, VncError) as error:
        raise ConsoleError(f"{bare(url)} does not lead to the console: {error}") from error
    refusal.result()
    result["wrong_token_refused"] = True
    if wanted["database_socket"]:
        expire_token(token, wanted["database_socket"], wanted["database"])
        check_refused(kind, url, token, "an expired", timeout, ca_file)
        result["expired_token_refused"] = True
    return result


def _websocket(url: str, token: str, timeout: float, ca_file: str | None) -> WebSocket:
    return WebSocket(
        socket_url(url, token), subprotocols=["binary"], origin=origin_of(url), timeout=timeout, ca_file=ca_file
    )


def probe_all(
    api: CloudApi, server: str, wanted: dict[str, Any], hide: Callable[[str], object]
) -> dict[str, dict[str, Any]]:
    """Check the wanted consoles side by side. Raises ConsoleError or CloudError of the first that fails."""
    consoles: dict[str, dict[str, Any]] = {}
    probes = {kind: Background(partial(probe, api, server, kind, wanted, hide)) for kind in wanted["types"]}
    for kind, work in probes.items():
        try:
            consoles[kind] = work.result()
        except ConsoleError as error:
            error.layer = LAYERS[kind]
            raise
    return consoles
