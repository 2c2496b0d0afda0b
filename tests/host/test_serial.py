# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A serial console reaches its guest over TLS, and computes show consoles to controllers only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

PORT = 6084
AUTHORITY = "/etc/kilonova/serial/ca.pem"
# Prints what the guest answers to a line feed, and where the connections of this host to computes lead meanwhile.
TALK = """
import socket, ssl, struct, subprocess, urllib.parse
server = nova.find_server(ARGUMENTS[0])
url = urllib.parse.urlsplit(nova.create_server_remote_console(server, protocol="serial", type="serial").url)
context = ssl.create_default_context(cafile=ARGUMENTS[1])
with (
    socket.create_connection((url.hostname, url.port), 60) as plain,
    context.wrap_socket(plain, server_hostname=url.hostname) as console,
):
    stream = console.makefile("rwb")
    def send(content):
        stream.write(content)
        stream.flush()
    send("\\r\\n".join([
        f"GET /?{url.query} HTTP/1.1", f"Host: {url.netloc}", f"Origin: https://{url.netloc}", "Connection: Upgrade",
        "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Protocol: binary", "", ""]).encode())
    assert b" 101 " in stream.readline()
    while stream.readline().strip():
        pass
    send(b"\\x82\\x81\\0\\0\\0\\0\\n")
    text = b""
    while b"login:" not in text:
        kind, length = stream.read(2)
        if length == 126:
            (length,) = struct.unpack(">H", stream.read(2))
        assert kind == 0x82, (kind, stream.read(length), text)
        text += stream.read(length)
    legs = subprocess.check_output(f"ss -H -n -t state established dport = :{ARGUMENTS[2]}".split(), text=True)
print(json.dumps([text.decode(errors="replace"), [line.split()[3] for line in legs.splitlines()], server.compute_host]))
"""
# Prints what each client gets after a line feed: its certificate ("" for none, null for no TLS) and the console's port.
ASK = """
import socket, ssl
address, port, authority, clients = ARGUMENTS
def answer(certificate, console):
    with socket.create_connection((address, port), 10) as connection:
        connection.settimeout(10)
        try:
            if certificate is None:
                connection.sendall(b"\\n")
                return connection.recv(100).decode(errors="replace")
            context = ssl.create_default_context(cafile=authority)
            if certificate:
                context.load_cert_chain(certificate)
            with context.wrap_socket(connection, server_hostname=f"{console}.{address}") as secure:
                secure.sendall(b"\\n")
                return secure.recv(100).decode(errors="replace")
        except ssl.SSLError as error:
            return error.reason
        except ConnectionResetError:
            return ""
print(json.dumps([answer(*client) for client in clients]))
"""


def test_a_console_reaches_its_guest(site: Any, hosts_sites: tuple[Any, ...], on_cloud: Callable[..., Any]) -> None:
    text, legs, compute = on_cloud(TALK, site.server, site.authority, PORT)
    assert "login:" in text
    (address,) = [one.management_address for one in hosts_sites if one.name == compute]
    assert f"{address}:{PORT}" in legs


@pytest.mark.on("compute")
def test_consoles_are_for_controllers_only(site: Any, run_python: Callable[..., Any]) -> None:
    """Not even for a compute, by its own certificate."""
    clients = [[None, 10000], ["", 10000], ["/etc/kilonova/serial/server.pem", 10000]]
    wanted = ["", "TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"]
    assert run_python(ASK, site.management_address, PORT, AUTHORITY, clients) == wanted


@pytest.mark.on("compute")
def test_no_other_port_of_a_compute_is_reached_this_way(
    site: Any, first_controller: Any, run_python_of: Callable[..., Any]
) -> None:
    """The server of ssh would greet."""
    clients = [["/etc/haproxy/serial-client.pem", 22], ["/etc/haproxy/serial-client.pem", 5900]]
    ask = run_python_of(first_controller.connect())
    assert ask(ASK, site.management_address, PORT, "/etc/haproxy/serial-ca.pem", clients) == ["", ""]


def test_only_what_nova_opens_is_led_there(host: Any) -> None:
    rules = host.check_output("nft --numeric list table ip kilonova_serial")
    nova = host.check_output("id --user nova")
    assert f"meta skuid {nova} tcp dport 10000-10999 redirect to :6085" in rules
    assert rules.count("redirect") == 1
