# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What crosses the network between hosts, read from the wire while the cloud works. Needs two computes.

Every connection between hosts has to carry TLS records or ssh; what a protocol says before it changes to TLS is listed.
Geneve, in which guests' packets travel, is UDP and not looked at.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from module_utils.kilonova.consoles import probe

# Keeps the first bytes of each direction of each TCP connection between two of the addresses, until it is terminated.
SNIFFER = """
import base64, json, signal, socket, struct, sys
addresses, target, limit = set(sys.argv[1].split(",")), sys.argv[2], 65536
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
open(target + ".ready", "w").close()
flows = {}
try:
    while True:
        frame, (name, kind, *_) = wire.recvfrom(70000)
        if name == "lo" or kind != 0x0800 or frame[23] != 6:
            continue
        source, destination = socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])
        if source == destination or source not in addresses or destination not in addresses:
            continue
        start = 14 + (frame[14] & 15) * 4
        end = 14 + struct.unpack("!H", frame[16:18])[0] or len(frame)
        here, there, number = struct.unpack("!HHI", frame[start:start + 8])
        syn = frame[start + 13] & 2
        data = frame[start + (frame[start + 12] >> 4) * 4:end]
        key = f"{source}:{here}>{destination}:{there}"
        if syn:
            flows[key] = {"first": (number + 1) % 2**32, "new": True, "parts": {}}
        if not data:
            continue
        flow = flows.setdefault(key, {"first": number, "new": False, "parts": {}})
        offset = (number - flow["first"]) % 2**32
        if offset < limit and len(data) > len(flow["parts"].get(offset, b"")):
            flow["parts"][offset] = data
finally:
    for flow in flows.values():
        whole = b""
        for offset, data in sorted(flow.pop("parts").items()):
            if offset <= len(whole):
                whole = whole[:offset] + data + whole[offset + len(data):]
        flow["data"] = base64.b64encode(whole).decode()
    with open(target, "w") as file:
        json.dump(flows, file)
"""
START = """
import base64, os, subprocess, time
script, addresses, unit = ARGUMENTS
target = f"/run/{unit}.json"
for path in (target, target + ".ready"):
    if os.path.exists(path):
        os.unlink(path)
code = base64.b64encode(script.encode()).decode()
program = f"import base64; exec(base64.b64decode('{code}'))"
subprocess.run(["systemd-run", "--quiet", "--collect", f"--unit={unit}", "--service-type=exec",
                "/usr/bin/python3", "-c", program, addresses, target], check=True)
deadline = time.monotonic() + 30
while not os.path.exists(target + ".ready"):
    if time.monotonic() > deadline:
        raise SystemExit(subprocess.run(["journalctl", "-n", "20", "-u", unit], capture_output=True, text=True).stdout)
    time.sleep(0.1)
"""
STOP = """
import os, subprocess
unit = ARGUMENTS[0]
subprocess.run(["systemctl", "stop", unit], check=True)
target = f"/run/{unit}.json"
with open(target) as file:
    print(file.read())
for path in (target, target + ".ready"):
    os.unlink(path)
"""
UNIT = "kilonova-test-wire"
OWN_ADDRESSES = (
    'ip -json -4 address | python3 -c \'import json, sys; print(*(one["local"] for link in json.load(sys.stdin)'
    ' for one in link["addr_info"] if link["ifname"] != "lo"))\''
)
# Units that hold connections for as long as they run.
RESTART = """
import subprocess
subprocess.run(["systemctl", "restart", *ARGUMENTS], check=True)
"""
CONSOLES = """
server = nova.find_server(ARGUMENTS[0])
print(json.dumps([nova.create_console(server, console_type=kind)["url"] for kind in ("novnc", "serial")]))
"""
MIGRATE = """
server = nova.find_server(ARGUMENTS[0], details=True)
host = server.compute_host
wait(lambda: all(service.state == "up" for service in nova.services()), 120, "every service of Nova is up")
nova.live_migrate_server(server, host=None, block_migration="auto")
wait(lambda: (now := nova.get_server(server.id)).compute_host != host and not now.task_state, 280, "the migration")
# The former host deletes all tokens of consoles before it calls the migration completed.
newest = lambda: max(nova.migrations(instance_uuid=server.id), key=lambda one: one.created_at)
wait(lambda: newest().status == "completed", 60, "the end of the migration")
print(json.dumps(host))
"""
# What a protocol says before it changes to TLS.
BEFORE_TLS = {
    "VNC": rb"RFB \d{3}\.\d{3}\n",
    "NBD server": rb"NBDMAGICIHAVEOPT",
    # Its first option is to start TLS.
    "NBD client": rb"\0\0\0.IHAVEOPT\0\0\0\x05",
}
# Before TLS begins, a protocol negotiates with few bytes.
NEGOTIATION = 256
HEADER = re.compile(rb"[\x14-\x17]\x03[\x01-\x04]")
VERSIONS = {0x0303: "TLS 1.2", 0x0304: "TLS 1.3"}
LEGS = {
    "APIs": [range(5000, 5001), range(8774, 8779), range(9292, 9293), range(9696, 9697)],
    "RabbitMQ": [range(5671, 5672)],
    "OVN southbound": [range(16642, 16643)],
    "libvirt": [range(16514, 16515)],
    "QEMU migration": [range(49152, 49216)],
    "VNC": [range(5900, 6000)],
    "serial console": [range(6084, 6085)],
}


@dataclass
class Stream:
    """One direction of a connection."""

    data: bytes
    new: bool
    # Offset of the first TLS record, -1 without one.
    start: int


def first_record(data: bytes) -> int:
    """Return the offset from which on the data are TLS records, or -1."""
    for match in HEADER.finditer(data):
        offset, count = match.start(), 0
        while offset + 5 <= len(data) and HEADER.match(data, offset):
            length = int.from_bytes(data[offset + 3 : offset + 5], "big")
            if not 0 < length <= 16640:
                break
            offset, count = offset + 5 + length, count + 1
        # A chain that reaches the end is no accident.
        if count and offset + 5 > len(data):
            return match.start()
    return -1


def hello(data: bytes) -> tuple[str, int] | None:
    """Return version and cipher suite of a ServerHello."""
    if data[:1] != b"\x16" or data[5:6] != b"\x02":
        return None
    body = data[9:]
    version, rest = int.from_bytes(body[:2], "big"), body[34:]
    rest = rest[1 + rest[0] :]
    suite = int.from_bytes(rest[:2], "big")
    size, rest = int.from_bytes(rest[3:5], "big"), rest[5:]
    rest = rest[:size]
    while len(rest) >= 4:
        kind, length = int.from_bytes(rest[:2], "big"), int.from_bytes(rest[2:4], "big")
        if kind == 43:
            version = int.from_bytes(rest[4:6], "big")
        rest = rest[4 + length :]
    return VERSIONS.get(version, hex(version)), suite


def leg_of(port: int) -> str:
    return next((name for name, ranges in LEGS.items() if any(port in one for one in ranges)), f"port {port}")


def plain_reason(stream: Stream) -> str:
    """Return what crosses the network without TLS, or nothing."""
    if stream.data.startswith(b"SSH-") or not stream.data:
        return ""
    before = stream.data[: stream.start] if stream.start >= 0 else stream.data
    if stream.start >= 0 and not stream.new:
        # The end of a record that began earlier.
        return "" if len(before) <= 16640 else repr(before[:60])
    if not before or (len(before) <= NEGOTIATION and any(re.match(one, before) for one in BEFORE_TLS.values())):
        return ""
    return repr(before[:60])


@pytest.fixture(scope="module")
def wire(
    hosts_sites: tuple[Any, ...], run_python_of: Callable[[Any], Callable[..., Any]], on_cloud: Callable[..., Any]
) -> Iterator[dict[str, tuple[Stream, Stream]]]:
    """Connections between hosts, as ``client>server`` with what both sent, while the cloud uses every leg."""
    computes = [site for site in hosts_sites if "compute" in site.groups]
    if len(computes) < 2:
        pytest.skip("needs two computes")
    python = {site.name: run_python_of(site.connect()) for site in hosts_sites}
    addresses = {site.name: site.connect().check_output(OWN_ADDRESSES).split() for site in hosts_sites}
    everything = ",".join(address for found in addresses.values() for address in found)
    captured: dict[str, dict[str, Any]] = {}
    started = []
    try:
        for name, run in python.items():
            run(START, SNIFFER, everything, UNIT)
            started.append(name)
        server = next(site.server for site in hosts_sites if site.first)
        units = ["nova-compute", "neutron-ovn-metadata-agent", "ovn-controller"]
        for site in computes:
            python[site.name](RESTART, *units)
        _use_consoles(on_cloud, server, hosts_sites)
        on_cloud(MIGRATE, server)
        _use_consoles(on_cloud, server, hosts_sites)
    finally:
        for name in started:
            captured |= python[name](STOP, UNIT)
    yield _connections(captured)


def _use_consoles(on_cloud: Callable[..., Any], server: str, hosts_sites: tuple[Any, ...]) -> None:
    first = next(site for site in hosts_sites if site.first)
    authority = str(Path(first.local_directory, "ca.pem"))
    vnc, serial = on_cloud(CONSOLES, server)
    probe.open_vnc(vnc, probe.token_of(vnc), 60, authority)
    probe.open_serial(serial, probe.token_of(serial), 60, authority)


def _connections(captured: dict[str, dict[str, Any]]) -> dict[str, tuple[Stream, Stream]]:
    streams = {}
    for key, flow in captured.items():
        data = base64.b64decode(flow["data"])
        streams[key] = Stream(data, flow["new"], first_record(data))
    found = {}
    for key, stream in streams.items():
        source, _, destination = key.partition(">")
        back = streams.get(f"{destination}>{source}", Stream(b"", True, -1))
        if hello(back.data[max(back.start, 0) :]):
            found[key] = (stream, back)
        elif not hello(stream.data[max(stream.start, 0) :]):
            # Without a handshake, the lower port is the server's.
            ports = [int(end.rpartition(":")[2]) for end in (source, destination)]
            if ports[1] <= ports[0]:
                found[key] = (stream, back)
    return found


def test_nothing_is_plain_between_hosts(wire: dict[str, tuple[Stream, Stream]]) -> None:
    plain = [f"{key}: {text}" for key, both in wire.items() for stream in both if (text := plain_reason(stream))]
    assert plain == []


def test_every_leg_has_a_new_version_of_tls(wire: dict[str, tuple[Stream, Stream]]) -> None:
    names = {int(one["id"]) & 0xFFFF: one["name"] for one in ssl.create_default_context().get_ciphers()}
    seen: dict[str, set[tuple[str, str]]] = {}
    for key, (_, back) in wire.items():
        if answer := hello(back.data[max(back.start, 0) :]):
            version, suite = answer
            port = int(key.rpartition(":")[2])
            seen.setdefault(leg_of(port), set()).add((version, names.get(suite, hex(suite))))
    print(json.dumps({leg: sorted(values) for leg, values in sorted(seen.items())}, indent=1))
    assert set(LEGS) <= set(seen)
    assert {version for values in seen.values() for version, _ in values} <= set(VERSIONS.values())
