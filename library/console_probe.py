#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: look at a server's consoles as a browser does."""

from __future__ import annotations

DOCUMENTATION = r"""
module: console_probe
short_description: Open a server's consoles with a token, and see wrong tokens refused
version_added: "0.1.0"
description:
  - Asks Nova for a console address (API C(POST /servers/ID/remote-consoles), microversion 2.6 and later) and uses it
    as a browser does, with an C(Origin) header and the WebSocket subprotocol C(binary).
  - For C(novnc) the page has to come and to be noVNC's, and the WebSocket has to lead into a VNC session (RFC 6143) up
    to the screen's name.
  - For C(serial) the WebSocket has to open, and a line feed typed into it has to yield some text.
  - A token that was never issued must lead nowhere. With O(database_socket), neither must the token that worked a
    moment before, once its row in C(console_auth_tokens) says that it expired. Nova's proxies accept tokens whose
    C(expires) is in the future (nova/objects/console_auth_token.py); setting the row back does what waiting
    C([consoleauth]token_ttl) does. Only the row of this module's own token is touched, and it is useless afterwards.
  - The tokens appear neither in the result nor in messages.
author: The Kilonova authors (@kilonova)
options:
  cloud:
    description: Name of the cloud in O(clouds_file).
    type: str
    default: admin
  clouds_file:
    description: Path of the clouds.yaml file with the credentials.
    type: path
    default: /etc/openstack/clouds.yaml
  api_timeout:
    description: Seconds to wait for Keystone to answer.
    type: int
    default: 120
  server:
    description: Identifier of the server.
    type: str
    required: true
  types:
    description: Consoles to look at.
    type: list
    elements: str
    default: [novnc]
    choices: [novnc, serial]
  timeout:
    description: Seconds for each console to answer.
    type: int
    default: 20
  ca_file:
    description: File with the certificate of the authority that signed the consoles' certificates, for https addresses.
    type: path
  database_socket:
    description:
      - MariaDB's Unix socket on this host, where root may log in without a password. Empty to leave out the check of an
        expired token.
    type: str
    default: ""
  database:
    description: Name of the cell database that holds the tokens.
    type: str
    default: nova
requirements:
  - python3-openstacksdk on the host
  - python3-pymysql on the host, for O(database_socket)
attributes:
  check_mode:
    support: full
    description: Does the same; it changes nothing of the cloud's.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Look at the consoles
  console_probe:
    server: 1ca6bbcd-5f9d-4e1d-9d14-954c2e40cc7e
    types: [novnc, serial]
    database_socket: /run/mysqld/mysqld.sock
"""

RETURN = r"""
consoles:
  description:
    - What was seen, by console type. All have address (without the token), wrong_token_refused and, with
      O(database_socket), expired_token_refused.
    - C(novnc) also has version, width, height (pixels) and name of the screen; C(serial) also has text, the end of what
      the guest said.
  returned: success
  type: dict
  sample:
    novnc: {address: "http://10.0.0.2:6080/vnc_auto.html", version: "003.008", width: 720, height: 400,
            name: "QEMU (instance-00000001)", wrong_token_refused: true, expired_token_refused: true}
layer:
  description: The part of the cloud that failed.
  returned: failure
  type: str
"""

import hashlib
import ssl
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.error import URLError
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.cloud_api import CloudApi, CloudError, layer_logs
from ansible.module_utils.openstack_client import CLIENT_ARGUMENTS, connect
from ansible.module_utils.vnc import VncError, open_session
from ansible.module_utils.websocket import HandshakeRefused, WebSocket, WebSocketError

LAYERS = {"novnc": "noVNC console", "serial": "serial console"}
PROTOCOLS = {"novnc": "vnc", "serial": "serial"}
PAGE_BYTES = 65536
SERIAL_TEXT = 400


class ProbeError(Exception):
    """A console does not do what it should."""


def token_of(url: str) -> str:
    """The token in a console address: in its query, or, for noVNC, in the query of the query's ``path``."""
    query = parse_qs(urlsplit(url).query)
    if "token" in query:
        return query["token"][0]
    for path in query.get("path", []):
        token = parse_qs(urlsplit(path).query or path.lstrip("/?")).get("token")
        if token:
            return token[0]
    raise ProbeError("Nova's console address has no token in it")


def socket_url(url: str, token: str) -> str:
    """The WebSocket address that noVNC's page, or a serial client, opens for a console address and a token."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    path = parts.path if scheme == parts.scheme else "/"
    return urlunsplit((scheme, parts.netloc, path or "/", f"token={quote(token, safe='')}", ""))


def origin_of(url: str) -> str:
    """What a browser that shows this address says in ``Origin``."""
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    return f"{scheme}://{parts.netloc}"


def bare(url: str) -> str:
    """The address without query, for results and messages: the query holds the token."""
    return urlunsplit((*urlsplit(url)[:3], "", ""))


def check_page(url: str, timeout: float, ca_file: str | None) -> None:
    """The page answers 200 and is noVNC's."""
    context = ssl.create_default_context(cafile=ca_file) if url.startswith("https:") else None
    try:
        with urlopen(Request(url, headers={"Accept": "text/html"}), timeout=timeout, context=context) as answer:
            page = answer.read(PAGE_BYTES).decode("utf-8", "replace")
            status = answer.status
    except URLError as error:
        raise ProbeError(f"the page {bare(url)} does not come: {error}") from error
    except OSError as error:
        raise ProbeError(f"the page {bare(url)} does not come: {error}") from error
    if status != 200 or "noVNC" not in page:
        raise ProbeError(f"{bare(url)} answered {status} with a page that is not noVNC's: {page[:200]!r}")


def open_vnc(url: str, token: str, timeout: float, ca_file: str | None) -> dict[str, Any]:
    """The VNC session behind a token. WebSocketError or VncError where there is none."""
    with _websocket(url, token, timeout, ca_file) as console:
        return open_session(console)


def open_serial(url: str, token: str, timeout: float, ca_file: str | None) -> dict[str, Any]:
    """What the guest says on its serial line after a line feed. WebSocketError where it says nothing."""
    text = b""
    with _websocket(url, token, timeout, ca_file) as console:
        console.send(b"\n")
        deadline = time.monotonic() + timeout
        while not text.strip():
            try:
                message = console.receive(timeout=max(0.1, deadline - time.monotonic()))
            except TimeoutError:
                raise WebSocketError(
                    f"the guest said nothing on its serial line within {timeout:g} s of a line feed"
                ) from None
            if message is None:
                raise WebSocketError("the proxy closed the connection")
            text += message
    return {"text": text[-SERIAL_TEXT:].decode("utf-8", "replace")}


def check_refused(kind: str, url: str, token: str, what: str, timeout: float, ca_file: str | None) -> None:
    """The console must not open: the handshake is refused, or the connection closed before a byte comes."""
    try:
        with _websocket(url, token, timeout, ca_file) as console:
            if kind == "serial":
                console.send(b"\n")
            first = console.receive()
    except HandshakeRefused as refusal:
        if refusal.status >= 500:
            raise ProbeError(f"with {what} token the console does not refuse but fails: {refusal}") from refusal
        return
    except WebSocketError as error:
        raise ProbeError(f"with {what} token the console was not asked: {error}") from error
    except TimeoutError:
        raise ProbeError(
            f"with {what} token the connection stays open; it has to be closed within {timeout:g} s"
        ) from None
    if first is not None:
        raise ProbeError(f"the console opens with {what} token: it sent {first[:20]!r}")


def expire_token(module: AnsibleModule, token: str) -> None:
    """Let the token's time be over. The cell database keeps a token as its sha256."""
    try:
        import pymysql
    except ImportError:
        module.fail_json(msg=missing_required_lib("PyMySQL"))
    digest = hashlib.sha256(token.encode()).hexdigest()
    try:
        link = pymysql.connect(
            unix_socket=module.params["database_socket"], user="root", database=module.params["database"]
        )
        with link, link.cursor() as cursor:
            rows = cursor.execute(
                "UPDATE console_auth_tokens SET expires = %s WHERE token_hash = %s", (int(time.time()) - 1, digest)
            )
            link.commit()
    except pymysql.MySQLError as error:
        raise ProbeError(f"the token cannot be made to expire in the database: {error}") from error
    if rows != 1:
        raise ProbeError(f"{rows} tokens of this console are in the database '{module.params['database']}', not 1")


def probe(module: AnsibleModule, api: CloudApi, kind: str) -> dict[str, Any]:
    """All checks of one console."""
    params = module.params
    timeout, ca_file = float(params["timeout"]), params["ca_file"]
    body = {"remote_console": {"protocol": PROTOCOLS[kind], "type": kind}}
    url = str(api.post("compute", f"/servers/{params['server']}/remote-consoles", body)["remote_console"]["url"])
    token = token_of(url)
    module.no_log_values.add(token)
    result: dict[str, Any] = {"address": bare(url)}
    with ThreadPoolExecutor(1) as aside:
        refusal = aside.submit(check_refused, kind, url, str(uuid.uuid4()), "a made-up", timeout, ca_file)
        try:
            if kind == "novnc":
                check_page(url, timeout, ca_file)
                result |= open_vnc(url, token, timeout, ca_file)
            else:
                result |= open_serial(url, token, timeout, ca_file)
        except TimeoutError:
            raise ProbeError(f"{bare(url)} accepts the connection, but nothing came within {timeout:g} s") from None
        except (WebSocketError, VncError) as error:
            raise ProbeError(f"{bare(url)} does not lead to the console: {error}") from error
        refusal.result()
    result["wrong_token_refused"] = True
    if params["database_socket"]:
        expire_token(module, token)
        check_refused(kind, url, token, "an expired", timeout, ca_file)
        result["expired_token_refused"] = True
    return result


def _websocket(url: str, token: str, timeout: float, ca_file: str | None) -> WebSocket:
    return WebSocket(
        socket_url(url, token), subprotocols=["binary"], origin=origin_of(url), timeout=timeout, ca_file=ca_file
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CLIENT_ARGUMENTS,
            "server": {"type": "str", "required": True},
            "types": {"type": "list", "elements": "str", "default": ["novnc"], "choices": ["novnc", "serial"]},
            "timeout": {"type": "int", "default": 20},
            "ca_file": {"type": "path"},
            "database_socket": {"type": "str", "default": ""},
            "database": {"type": "str", "default": "nova"},
        },
        supports_check_mode=True,
    )
    api = CloudApi(connect(module))
    consoles: dict[str, Any] = {}
    # Side by side: most of the time, each waits for a proxy of its own.
    with ThreadPoolExecutor() as pool:
        probes = {kind: pool.submit(probe, module, api, kind) for kind in module.params["types"]}
    for kind, work in probes.items():
        try:
            consoles[kind] = work.result()
        except CloudError as error:
            layers = [error.layer, LAYERS[kind]]
            module.fail_json(msg=f"{error.layer}: {error}\n{layer_logs(layers)}", layer=error.layer)
        except ProbeError as error:
            module.fail_json(msg=f"{LAYERS[kind]}: {error}\n{layer_logs([LAYERS[kind]])}", layer=LAYERS[kind])
    module.exit_json(changed=False, consoles=consoles)


if __name__ == "__main__":
    main()
