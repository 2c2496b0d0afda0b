# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A local user of a host without rights gets at no guest, no cache and no console."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

CACHES = ["keystone", "glance", "placement", "neutron", "nova"]
NOBODY = "runuser -u nobody --"
# Opens every cache as each user and prints those that answer.
OPEN_CACHES = """
import os, pwd, socket, sys
def opens(user, cache):
    entry = pwd.getpwnam(user)
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.initgroups(user, entry.pw_gid); os.setgid(entry.pw_gid); os.setuid(entry.pw_uid)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(f"/run/kilonova-memcached/{cache}/socket")
                connection.sendall(b"version\\r\\n")
                os.write(writer, connection.recv(100))
        except OSError:
            pass
        os._exit(0)
    os.close(writer)
    os.wait()
    with open(reader, "rb") as stream:
        return stream.read().startswith(b"VERSION")
caches = ARGUMENTS[0]
print(json.dumps([[user, cache] for user in [*caches, "nobody"] for cache in caches if opens(user, cache)]))
"""
# As somebody would who could write to Nova's cache: changes every value while a token is cached.
CHANGE_CACHE = """
import socket, openstack
cloud = openstack.connect(cloud="admin")
project = cloud.current_project_id

def ask(*lines):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("/run/kilonova-memcached/nova/socket")
        connection.settimeout(30)
        connection.sendall(b"".join(lines))
        answer = b""
        while not answer.endswith((b"END\\r\\n", b"STORED\\r\\n")):
            answer += connection.recv(65536)
        return answer

def values():
    found = {}
    for line in ask(b"lru_crawler metadump all\\r\\n").splitlines():
        if line.startswith(b"key="):
            # Keys come quoted for a URL.
            from urllib.parse import unquote_to_bytes
            key = unquote_to_bytes(line.split()[0][4:])
            if key.startswith(b"tokens/"):
                head, _, rest = ask(b"get " + key + b"\\r\\n").partition(b"\\r\\n")
                if head.startswith(b"VALUE"):
                    _, _, flags, length = head.split()
                    found[key] = (flags, rest[:int(length)])
    return found

def servers():
    return cloud.session.get("/servers", endpoint_filter={"service_type": "compute"}).status_code

assert servers() == 200
before = values()
assert before, "Nova has cached no token"
for key, (flags, value) in before.items():
    changed = value[:-8] + (b"AAAAAAAA" if value[-8:] != b"AAAAAAAA" else b"BBBBBBBB")
    head = b" ".join([b"set", key, flags, b"300", str(len(changed)).encode()])
    assert b"STORED" in ask(head + b"\\r\\n", changed, b"\\r\\n")
print(json.dumps({
    "plain": [key.decode() for key, (_, value) in before.items() if b"roles" in value or project.encode() in value],
    "after": servers(),
    "again": servers(),
}))
"""
# Opens the page and the WebSocket of each console, as a browser does, and prints the tokens.
OPEN_CONSOLES = """
import http.client, ssl, urllib.parse
server = nova.find_server(ARGUMENTS[0])
tokens = []
for kind, protocol in ARGUMENTS[1]:
    url = nova.create_server_remote_console(server, protocol=protocol, type=kind).url
    parts = urllib.parse.urlsplit(url)
    query = urllib.parse.parse_qs(parts.query)
    path = query["path"][0] if "path" in query else f"?{parts.query}"
    tokens.append(urllib.parse.parse_qs(urllib.parse.urlsplit(path).query)["token"][0])
    def get(target, headers):
        secure = parts.scheme in ("https", "wss")
        # Names and certificates are the business of other tests.
        connection = (http.client.HTTPSConnection(parts.hostname, parts.port, timeout=60,
                                                  context=ssl._create_unverified_context())
                      if secure else http.client.HTTPConnection(parts.hostname, parts.port, timeout=60))
        connection.request("GET", target, headers=headers)
        status = connection.getresponse().status
        connection.close()
        return status
    if kind == "novnc":
        page = get(f"{parts.path}?{parts.query}", {})
        assert page == 200, page
    opened = get("/" + path.lstrip("/"), {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol": "binary"})
    assert opened == 101, opened
print(json.dumps(tokens))
"""


@pytest.mark.on("compute")
def test_disks_of_guests_are_not_readable(host: Any) -> None:
    assert host.check_output("stat --format='%U %G %a' /var/lib/nova/instances") == "nova libvirt-qemu 750"
    assert host.run(f"{NOBODY} ls /var/lib/nova/instances").rc != 0
    disks = host.check_output("find /var/lib/nova/instances -name disk").splitlines()
    assert [disk for disk in disks if host.run(f"{NOBODY} test -r {disk}").rc == 0] == []
    assert [disk for disk in disks if host.run(f"runuser -u libvirt-qemu -- test -r {disk}").rc != 0] == []


@pytest.mark.on("compute")
def test_libvirt_shows_nothing(host: Any) -> None:
    assert host.check_output("stat --format='%a %G' /run/libvirt/libvirt-sock-ro") == "660 libvirt"
    assert host.run(f"{NOBODY} virsh --readonly --connect qemu:///system list").rc != 0
    assert host.run("virsh --readonly --connect qemu:///system list").rc == 0


def test_the_image_with_a_password_is_not_readable(host: Any) -> None:
    images = host.check_output("find /var/lib/kilonova/guest-image -type f").splitlines()
    assert images
    assert [
        image for image in images if not image.endswith(".lock") and host.run(f"{NOBODY} test -r {image}").rc == 0
    ] == []


@pytest.mark.on("controller")
def test_caches_are_for_their_services_only(site: Any, host: Any, run_python: Callable[..., Any]) -> None:
    assert ":11211" not in host.check_output("ss -H -l -n -t -u")
    caches = CACHES + (["cinder"] if site.storage else [])
    assert run_python(OPEN_CACHES, caches) == [[name, name] for name in caches]


def test_a_changed_token_in_a_cache_has_no_effect(run_python: Callable[..., Any]) -> None:
    assert run_python(CHANGE_CACHE) == {"plain": [], "after": 200, "again": 200}


def test_tokens_of_consoles_are_not_logged(site: Any, host: Any, on_cloud: Callable[..., Any]) -> None:
    tokens = on_cloud(OPEN_CONSOLES, site.server, [["novnc", "vnc"], ["serial", "serial"]])
    assert len(set(tokens)) == 2
    for token in tokens:
        found = host.run(f"grep --recursive --files-with-matches --fixed-strings --text -- {token} /var/log")
        assert found.stdout == ""
        assert host.run(f"journalctl --no-pager --quiet --all --output=cat --grep={token}").stdout == ""


@pytest.mark.on("controller", "compute")
def test_nobody_on_the_wire_redirects_a_host(site: Any, host: Any) -> None:
    values = host.check_output("sysctl --all --ignore --pattern '[.]accept_redirects$'").splitlines()
    assert values
    assert [line for line in values if not line.endswith("= 0")] == []
    assert host.check_output(f"sysctl --values net/ipv4/conf/{site.bridge}/rp_filter") == "1"
