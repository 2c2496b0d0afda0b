# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Databases, queues and APIs listen on loopback. Clients reach them through HAProxy."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

API_PORTS = {5000, 6080, 6083, 8774, 8775, 8778, 9292, 9696}
VOLUME_PORT = 8776
LOOPBACK_ONLY = {
    3306: "MariaDB",
    6085: "serial consoles on their way to computes",
    6640: "Open vSwitch database",
    16641: "OVN northbound database",
    16643: "OVN southbound database, for Neutron",
    16651: "HAProxy: leader of the OVN northbound database",
    16653: "HAProxy: member of the OVN southbound database",
}
MANAGEMENT_ONLY = {
    4369: "epmd",
    5671: "RabbitMQ",
    6084: "serial consoles",
    16642: "OVN southbound database",
    25672: "Erlang",
}
BETWEEN_CONTROLLERS = {3306, 16641, 16643}
SSH = 22


class Listener(NamedTuple):
    address: str
    port: int
    process: str


def listeners(host: Any) -> list[Listener]:
    """Return all TCP listeners outside of network namespaces of guests."""
    done = host.run("ss -H -l -n -t -p")
    assert done.rc == 0, done.stderr
    found = []
    for line in done.stdout.splitlines():
        fields = line.split()
        address, _, port = fields[3].rpartition(":")
        process = fields[5] if len(fields) > 5 else ""
        found.append(Listener(address.strip("[]").partition("%")[0], int(port), process))
    return found


def is_loopback(address: str) -> bool:
    return address not in ("*", "") and ipaddress.ip_address(address).is_loopback


def is_wildcard(address: str) -> bool:
    return address in ("*", "", "0.0.0.0", "::")


@pytest.mark.on("controller", "compute")
def test_only_ssh_listens_on_every_address(host: Any) -> None:
    assert [one for one in listeners(host) if is_wildcard(one.address) and one.port != SSH] == []


@pytest.mark.on("controller")
def test_commands_of_rabbitmq_listen_on_loopback(host: Any) -> None:
    """A command is an Erlang node, which listens for as long as it runs."""
    done = host.run(
        "rabbitmqctl --silent eval 'timer:sleep(5000).' & "
        "for try in $(seq 100); do ss -H -l -n -t -p | grep :3567 && break; sleep 0.1; done; wait"
    )
    found = [line.split()[3] for line in done.stdout.splitlines() if "beam" in line]
    assert found and all(is_loopback(address.rpartition(":")[0]) for address in found), done.stdout + done.stderr


@pytest.mark.on("controller")
def test_apis_are_reached_through_haproxy_only(site: Any, host: Any) -> None:
    ports = API_PORTS | ({VOLUME_PORT} if site.storage else set())
    served = [one for one in listeners(host) if one.port in ports]
    outside = [one for one in served if not is_loopback(one.address)]
    assert {one.port for one in outside} == ports
    # With several controllers, each has listeners for the HAProxys of all.
    wanted = {site.api_address} | ({site.management_address} if site.clustered else set())
    assert [one for one in outside if one.address not in wanted or "haproxy" not in one.process] == []
    assert [one for one in served if is_loopback(one.address) and "haproxy" in one.process] == []


@pytest.mark.on("controller")
def test_databases_are_on_loopback(site: Any, host: Any) -> None:
    # With several controllers, they reach each other's databases, with certificates.
    others = {site.management_address: BETWEEN_CONTROLLERS} if site.clustered else {}
    found = [
        one for one in listeners(host) if one.port in LOOPBACK_ONLY and one.port not in others.get(one.address, {})
    ]
    assert [one for one in found if not is_loopback(one.address)] == []
    assert {3306} <= {one.port for one in found}


@pytest.mark.on("controller", "compute")
def test_queue_and_ovn_are_on_the_management_network(site: Any, host: Any) -> None:
    found = [one for one in listeners(host) if one.port in MANAGEMENT_ONLY]
    assert [one for one in found if not is_loopback(one.address) and one.address != site.management_address] == []


@pytest.mark.on("compute")
def test_guests_screens_are_on_the_management_network(site: Any, host: Any) -> None:
    screens = [one for one in listeners(host) if "qemu" in one.process]
    assert [one for one in screens if not is_loopback(one.address) and one.address != site.management_address] == []


@pytest.mark.on("compute")
def test_guests_screens_need_a_certificate(host: Any, run_python: Callable[..., Any]) -> None:
    """QEMU offers only VeNCrypt (19) with X509None (260): TLS with certificates on both ends."""
    screens = [one for one in listeners(host) if "qemu" in one.process and 5900 <= one.port < 6000]
    script = """
import socket, struct
def offers(address, port):
    with socket.create_connection((address, port), timeout=10) as connection:
        stream = connection.makefile("rwb")
        def send(content):
            stream.write(content)
            stream.flush()
        send(stream.read(12))  # the RFB version that it speaks
        kinds = list(stream.read(stream.read(1)[0]))
        if kinds != [19]:
            return kinds
        send(b"\\x13")
        send(stream.read(2))  # VeNCrypt's version
        assert stream.read(1) == b"\\0"
        count = stream.read(1)[0]
        return kinds + list(struct.unpack(f">{count}I", stream.read(4 * count)))
print(json.dumps([offers(*screen) for screen in ARGUMENTS[0]]))
"""
    found = run_python(script, [[one.address, one.port] for one in screens])
    assert found == [[19, 260]] * len(screens)
