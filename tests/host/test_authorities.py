# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Servers that want a certificate of their clients take another authority, and leave it, without a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from plugins.filter import pki

SEED = "the seed of a cloud that this one does not know"
# Connects with a certificate, and returns whether the server answers. With TLS 1.3, it judges after the handshake.
CONNECT = """
import os, socket, ssl, struct, tempfile
address, port, speaks, pem, authority = ARGUMENTS
def read(stream, count):
    found = b""
    while len(found) < count:
        part = stream.recv(count - len(found))
        if not part:
            raise ConnectionError("closed")
        found += part
    return found
def answer():
    with tempfile.NamedTemporaryFile("w") as file, socket.create_connection((address, port), timeout=10) as plain:
        file.write(pem)
        file.flush()
        context = ssl.create_default_context(cafile=authority)
        context.check_hostname = False
        context.load_cert_chain(file.name)
        if speaks == "vnc":
            read(plain, 12)
            plain.sendall(b"RFB 003.008\\n")
            read(plain, read(plain, 1)[0])
            plain.sendall(bytes([19]))  # VeNCrypt
            read(plain, 2)
            plain.sendall(bytes([0, 2]))
            read(plain, 1)
            read(plain, 4 * read(plain, 1)[0])
            plain.sendall(struct.pack("!I", 260))  # X509None
            read(plain, 1)
        with context.wrap_socket(plain) as stream:
            if speaks == "ovsdb":
                stream.sendall(json.dumps({"method": "list_dbs", "params": [], "id": 0}).encode())
            # The result of the security type, the byte with which libvirtd accepts, or the databases.
            first = read(stream, {"vnc": 4, "libvirt": 1, "ovsdb": 1}[speaks])
            return first == {"vnc": bytes(4), "libvirt": b"\\1", "ovsdb": b"{"}[speaks]
try:
    print(json.dumps(answer()))
except (ssl.SSLError, ConnectionError):
    print("false")
"""
# As a deployment does: another file takes its name.
REPLACE = """
import os, shutil, tempfile
path, text = ARGUMENTS
handle, new = tempfile.mkstemp(dir=os.path.dirname(path))
with open(handle, "w") as file:
    file.write(text)
shutil.copystat(path, new)
os.utime(new)
before = os.stat(path)
os.chown(new, before.st_uid, before.st_gid)
os.replace(new, path)
"""
SERVED = """
import ssl, socket
address, port, pem, authority = ARGUMENTS
context = ssl.create_default_context(cafile=authority)
context.check_hostname = False
context.load_cert_chain(pem)
with socket.create_connection((address, port), timeout=10) as plain, context.wrap_socket(plain) as stream:
    print(json.dumps(ssl.DER_cert_to_PEM_cert(stream.getpeercert(binary_form=True))))
"""


@dataclass
class Server:
    """A server, the file with the authorities of its clients, and what lets it read that."""

    title: str
    speaks: str
    authority: str
    trusted: str
    port: int = 0
    reload: str = ""
    # What clients trust.
    servers: str = ""


SERVERS = [
    Server("libvirtd", "libvirt", "libvirt", "/etc/pki/CA/cacert.pem", 16514, "systemctl reload libvirtd"),
    Server("screen", "vnc", "console", "/etc/pki/libvirt-vnc/ca-cert.pem", reload="systemctl reload libvirtd"),
    Server("ovn", "ovsdb", "ovn-chassis", "/etc/ovn/clients-ca-certs.pem", 16642, servers="/etc/ovn/ca-cert.pem"),
]
# On an all-in-one host all of them, on others those that are there.
on_every_server = pytest.mark.parametrize("server", SERVERS, ids=[one.title for one in SERVERS])


@pytest.fixture
def replace(host: Any, run_python: Callable[..., Any]) -> Iterator[Callable[[str, str], None]]:
    """Give a file another content, and in the end its own."""
    before: dict[str, str] = {}

    def replaced(path: str, text: str) -> None:
        before.setdefault(path, host.file(path).content_string)
        run_python(REPLACE, path, text)

    yield replaced
    for path, text in before.items():
        run_python(REPLACE, path, text)
    if any(path.startswith("/etc/pki/") for path in before):
        host.check_output("systemctl reload libvirtd")


def started(host: Any) -> str:
    units = "libvirtd ovn-ovsdb-server-nb ovn-ovsdb-server-sb ovn-controller"
    return str(host.check_output(f"systemctl show --property Id,MainPID {units}; pgrep qemu-system || true"))


def port_of(host: Any, server: Server) -> int:
    if server.port:
        return server.port
    guests = host.check_output("virsh --quiet list --name").split()
    if not guests:
        pytest.skip("no guest runs here")
    return 5900 + int(host.check_output(f"virsh domdisplay --type vnc {guests[0]}").rsplit(":", 1)[1])


@on_every_server
@pytest.mark.on("compute")
def test_another_authority_is_trusted_for_a_while(
    server: Server, site: Any, host: Any, run_python: Callable[..., Any], replace: Callable[[str, str], None]
) -> None:
    if not host.file(server.trusted).exists:
        pytest.skip("another host serves it")
    own = host.file(server.trusted).content_string
    pem = pki.pki_certificate(SEED, server.authority, "test", usages=["client"]) + pki.pki_key(
        SEED, server.authority, "test"
    )
    at = (site.management_address, port_of(host, server), server.speaks, pem, server.servers or server.trusted)
    before = started(host)
    assert run_python(CONNECT, *at) is False
    replace(server.trusted, own + pki.pki_authority(SEED, server.authority))
    host.check_output(server.reload or "true")
    assert run_python(CONNECT, *at) is True
    replace(server.trusted, own)
    host.check_output(server.reload or "true")
    assert run_python(CONNECT, *at) is False
    assert started(host) == before


def test_ovn_serves_a_renewed_certificate(
    site: Any,
    host: Any,
    run_python: Callable[..., Any],
    replace: Callable[[str, str], None],
    generated_secrets: dict[str, str],
) -> None:
    """It has the key of the one before."""
    path = "/etc/ovn/server.pem"
    own = host.file(path).content_string
    address = site.management_address if site.clustered else "127.0.0.1"
    at = (address, 16643, path, "/etc/ovn/ca-cert.pem")
    assert run_python(SERVED, *at).strip() in own
    renewed = pki.pki_certificate(generated_secrets["secrets_pki_seed"], "ovn", site.name, [site.name, address], days=3)
    key = own[own.index("-----BEGIN PRIVATE KEY") :]
    before = started(host)
    replace(path, renewed + key)
    assert run_python(SERVED, *at).strip() == renewed.strip()
    replace(path, own)
    assert run_python(SERVED, *at).strip() in own
    assert started(host) == before
