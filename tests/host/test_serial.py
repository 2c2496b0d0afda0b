# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A serial console reaches its guest over TLS, and computes show consoles to controllers only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.kilonova.consoles.websocket import WebSocket

PORT = 6084
AUTHORITY = "/etc/kilonova/serial/ca.pem"
CONSOLE = """
server = nova.find_server(ARGUMENTS[0], details=True)
url = nova.create_server_remote_console(server, protocol="serial", type="serial").url
print(json.dumps([url, server.compute_host]))
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
                connection.sendall(b"\\n" * 16)
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


def test_a_console_reaches_its_guest_over_tls(
    site: Any, host: Any, hosts_sites: tuple[Any, ...], on_cloud: Callable[..., Any], tmp_path: Path
) -> None:
    url, compute = on_cloud(CONSOLE, site.server)
    (address,) = [one.management_address for one in hosts_sites if one.name == compute]
    authority = tmp_path / "ca.pem"
    authority.write_text(host.file(site.authority).content_string)
    origin = f"https://{site.api_address}:6083"
    with WebSocket(url, subprotocols=["binary"], origin=origin, ca_file=str(authority)) as console:
        console.send(b"\n")
        assert console.receive(timeout=60)
        legs = host.check_output(f"ss -H -n -t state established dport = :{PORT}").splitlines()
    assert f"{address}:{PORT}" in [line.split()[3] for line in legs]


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
