# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""APIs and consoles are reached with TLS only. Seen from this computer, which is a stranger to the hosts."""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.render import rendering
from tests.render.test_tls import HOST, proxy_of

PORTS = {
    "keystone": 5000,
    "novnc": 6080,
    "serial": 6083,
    "nova": 8774,
    "placement": 8778,
    "glance": 9292,
    "neutron": 9696,
}
# Where the cloud has a store.
VOLUMES = 8776
# Only computes reach it.
METADATA = 8775
VERSIONS = {"1.1": ssl.TLSVersion.TLSv1_1, "1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
TIMEOUT = 10
ACCEPTS = """
import subprocess, tempfile
with tempfile.NamedTemporaryFile("w") as file:
    file.write(ARGUMENTS[0])
    file.flush()
    done = subprocess.run(["haproxy", "-c", "-q", "-f", file.name], capture_output=True, text=True)
print(json.dumps([done.returncode, done.stdout + done.stderr]))
"""
every_port = pytest.mark.parametrize("port", PORTS.values(), ids=PORTS)


@pytest.fixture(scope="session")
def authority(site: Any, host: Any) -> str:
    text: str = host.file(site.authority).content_string
    return text


def context(authority: str, version: str = "") -> ssl.SSLContext:
    """A client that trusts the authority only, and speaks one version."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(cadata=authority)
    if version:
        if version == "1.1":
            made.set_ciphers("ALL:@SECLEVEL=0")
        made.minimum_version = made.maximum_version = VERSIONS[version]
    return made


def shake(site: Any, port: int, client: ssl.SSLContext) -> str:
    """Return the version that a handshake agrees on."""
    with (
        socket.create_connection((site.api_address, port), timeout=TIMEOUT) as plain,
        client.wrap_socket(plain, server_hostname=site.api_address) as secure,
    ):
        return str(secure.version())


@every_port
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_new_versions_and_names_are_accepted(site: Any, authority: str, port: int, version: str) -> None:
    assert shake(site, port, context(authority, version)) == f"TLSv{version}"


@every_port
@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated:DeprecationWarning")
def test_old_versions_are_refused(site: Any, authority: str, port: int) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        shake(site, port, context(authority, "1.1"))


@every_port
def test_nothing_is_served_without_tls(site: Any, port: int) -> None:
    with socket.create_connection((site.api_address, port), timeout=TIMEOUT) as plain:
        plain.sendall(f"GET / HTTP/1.1\r\nHost: {site.api_address}\r\nConnection: close\r\n\r\n".encode())
        try:
            answer = plain.recv(4096)
        except ConnectionError:
            answer = b""
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400", b"\x15\x03"))


@every_port
def test_the_certificate_is_that_of_the_authority(site: Any, port: int) -> None:
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(site, port, other)


def test_the_certificate_has_the_names_of_the_host(site: Any, authority: str, hosts_sites: tuple[Any, ...]) -> None:
    """That of the controller which holds the address, where there are several."""
    with (
        socket.create_connection((site.api_address, PORTS["nova"]), timeout=TIMEOUT) as plain,
        context(authority).wrap_socket(plain, server_hostname=site.api_address) as secure,
    ):
        names = secure.getpeercert()["subjectAltName"]  # type: ignore[index]
    assert {("DNS", other.name) for other in hosts_sites if "controller" in other.groups} & set(names)


@every_port
def test_headers(site: Any, authority: str, port: int) -> None:
    connection = http.client.HTTPSConnection(site.api_address, port, timeout=TIMEOUT, context=context(authority))
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert answer.getheader("Strict-Transport-Security") == "max-age=31536000"
    assert answer.getheader("X-Content-Type-Options") == "nosniff"
    assert answer.getheader("Referrer-Policy") == "no-referrer"
    # Of websockify, among others.
    assert answer.getheader("Server") is None


def test_files_of_the_console_that_tell_its_version_are_hidden(site: Any, authority: str) -> None:
    connection = http.client.HTTPSConnection(site.api_address, 6080, timeout=TIMEOUT, context=context(authority))
    connection.request("GET", "/package.json")
    assert connection.getresponse().status == 404


@pytest.mark.parametrize("port", [5000, 8774, VOLUMES, 8778, 9292, 9696])
def test_documents_name_addresses_with_tls(site: Any, authority: str, port: int) -> None:
    if port == VOLUMES and not site.storage:
        pytest.skip("the cloud has no store")
    connection = http.client.HTTPSConnection(site.api_address, port, timeout=TIMEOUT, context=context(authority))
    connection.request("GET", "/", headers={"X-Forwarded-Host": "elsewhere.example.org", "Forwarded": "host=else"})
    text = connection.getresponse().read().decode()
    assert "http://" not in text and "example.org" not in text
    assert port == 8778 or f"https://{site.api_address}:{port}" in text


@pytest.mark.on("controller", "compute")
def test_no_file_names_an_address_without_tls(site: Any, host: Any) -> None:
    paths = "/etc/nova /etc/neutron /etc/glance /etc/placement /etc/keystone /etc/openstack /root/openrc"
    ports = "|".join(map(str, [METADATA, *PORTS.values()]))
    found = host.run(f"grep -rEl '(http|ws)://{re.escape(site.api_address)}:({ports})' {paths}").stdout
    assert found == ""


@pytest.mark.on("controller", "compute")
def test_the_authority_is_on_every_host(site: Any, host: Any, hosts_sites: Any) -> None:
    file = host.file(site.authority)
    assert (file.user, file.mode) == ("root", 0o644)
    assert {one.connect().file(one.authority).sha256sum for one in hosts_sites} == {file.sha256sum}


@pytest.mark.on("controller")
def test_the_key_is_readable_by_root_only(host: Any) -> None:
    file = host.file("/etc/haproxy/front.pem")
    assert (file.user, file.mode) == ("root", 0o600)


def test_this_computer_uses_the_cloud(site: Any) -> None:
    if not site.local_directory:
        pytest.skip("the inventory has no clients_local_directory")
    path = Path(site.local_directory, "clouds.yaml")
    assert path.stat().st_mode & 0o777 == 0o600
    assert yaml.safe_load(path.read_text())["clouds"]["kilonova"]["cacert"] == str(path.with_name("ca.pem"))
    script = "import openstack; print([one.name for one in openstack.connect(cloud='kilonova').compute.servers()])"
    environment = {**os.environ, "OS_CLIENT_CONFIG_FILE": str(path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert site.server in done.stdout


@pytest.mark.on("compute")
def test_metadata_agents_reach_nova_with_tls_only(site: Any, host: Any, run_python: Callable[..., Any]) -> None:
    script = """
import socket, ssl
address, port, authority = ARGUMENTS
with socket.create_connection((address, port), timeout=10) as plain:
    plain.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    try:
        answer = plain.recv(100).decode(errors="replace")
    except ConnectionError:
        answer = ""
with (socket.create_connection((address, port), timeout=10) as plain,
      ssl.create_default_context(cafile=authority).wrap_socket(plain, server_hostname=address) as secure):
    print(json.dumps([answer, secure.version()]))
"""
    answer, version = run_python(script, site.api_address, METADATA, site.authority)
    assert " 200 " not in answer
    assert version in ("TLSv1.2", "TLSv1.3")


@pytest.mark.parametrize("plain", [True, False], ids=["while it moves a cloud to TLS", "with TLS only"])
def test_haproxy_accepts_its_configuration(plain: bool, run_python: Callable[..., Any]) -> None:
    """As role haproxy renders it for a sample; the certificate is that of the host."""
    text = proxy_of(rendering.load("all_in_one"), HOST, cloud_plain=plain)
    assert run_python(ACCEPTS, text) == [0, ""]
