# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Tests of library/preflight_facts.py, on this computer and on directories in the shape of /proc and /sys."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import preflight_facts
import pytest


@pytest.mark.parametrize(("uid", "name"), [(0, "root"), (1, "daemon"), (4242424, "4242424")])
def test_user_name(uid: int, name: str) -> None:
    assert preflight_facts.user_name(uid) == name


def test_own_listener_is_found_with_its_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        datagram.bind(("127.0.0.1", 0))
        found = preflight_facts.listeners()
        for protocol, port in (("tcp", server.getsockname()[1]), ("udp", datagram.getsockname()[1])):
            (mine,) = [entry for entry in found if (entry["protocol"], entry["port"]) == (protocol, port)]
            assert mine["address"] == "127.0.0.1"
            assert mine["pid"] == os.getpid()
            assert mine["process"] == Path("/proc/self/comm").read_text().strip()


def test_connections_are_not_listeners() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert client.getsockname()[1] not in [entry["port"] for entry in preflight_facts.listeners()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0100007F:1F90", ("127.0.0.1", 8080)),
        ("00000000:0016", ("0.0.0.0", 22)),
        ("00000000000000000000000001000000:0016", ("::1", 22)),
    ],
)
def test_socket_address(text: str, expected: tuple[str, int]) -> None:
    assert preflight_facts.socket_address(text) == expected


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("0::/system.slice/haproxy.service\n", "haproxy.service"),
        ("4:memory:/\n1:name=systemd:/system.slice/keystone.service\n0::/\n", "keystone.service"),
        ("0::/system.slice/system-x.slice/x@1.service/sub\n", "x@1.service"),
        ("0::/init.scope\n", "init.scope"),
        ("4:memory:/a.service\n", ""),
        ("", ""),
    ],
)
def test_unit_of(text: str, unit: str) -> None:
    assert preflight_facts.unit_of(text) == unit


def test_systemd_is_the_owner_only_where_nobody_else_is(tmp_path: Path) -> None:
    for pid, inodes in (("1", ("7", "8")), ("44", ("7",))):
        directory = tmp_path / pid / "fd"
        directory.mkdir(parents=True)
        for number, inode in enumerate(inodes):
            (directory / str(number)).symlink_to(f"socket:[{inode}]")
    assert preflight_facts.socket_owners({"7", "8"}, str(tmp_path)) == {"7": 44, "8": 1}


def test_os_release(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n')
    found = preflight_facts.os_release(f"{tmp_path}/")
    assert found == {"id": "debian", "version": "13", "name": "Debian GNU/Linux 13 (trixie)", "codename": ""}


def test_memory() -> None:
    assert preflight_facts.memory_mib("MemFree: 1 kB\nMemTotal:       16384000 kB\n") == 16000
    assert preflight_facts.memory_mib("") == 0


def test_interfaces(tmp_path: Path) -> None:
    for name, master in (("eth0", "br0"), ("br0", "")):
        directory = tmp_path / name
        directory.mkdir()
        for file, text in (("address", "02:00:00:00:00:01"), ("mtu", "1400"), ("flags", "0x1003"), ("type", "1")):
            (directory / file).write_text(f"{text}\n")
        if master:
            (directory / "master").symlink_to(f"../{master}")
    (tmp_path / "br0/bridge").mkdir()
    (tmp_path / "br0/brif/eth0").mkdir(parents=True)
    (tmp_path / "bonding_masters").write_text("")
    addresses = [
        {
            "ifname": "br0",
            "addr_info": [
                {"local": "10.0.0.2", "prefixlen": 24, "scope": "global"},
                {"local": "fe80::1", "prefixlen": 64, "scope": "link"},
            ],
        }
    ]
    common = {"mac": "02:00:00:00:00:01", "mtu": 1400, "up": True}
    assert preflight_facts.interfaces(addresses, str(tmp_path)) == {
        "br0": {**common, "kind": "bridge", "master": "", "ports": ["eth0"], "addresses": ["10.0.0.2/24"]},
        "eth0": {**common, "kind": "", "master": "br0", "ports": [], "addresses": []},
    }


def test_default_route_with_the_lowest_metric() -> None:
    routes: list[dict[str, Any]] = [
        {"dst": "default", "gateway": "10.1.0.1", "dev": "wlan0", "metric": 600},
        {"dst": "default", "gateway": "10.0.0.1", "dev": "eth0", "metric": 100},
        {"dst": "10.0.0.0/24", "dev": "eth0"},
    ]
    assert preflight_facts.default_route(routes) == ("eth0", "10.0.0.1")
    assert preflight_facts.default_route([]) == ("", "")


def test_kvm_says_why_not(tmp_path: Path) -> None:
    assert preflight_facts.kvm(str(tmp_path / "kvm")) == (False, f"{tmp_path}/kvm: No such file or directory")
    usable, reason = preflight_facts.kvm("/dev/null")
    assert not usable
    assert reason.startswith("/dev/null does not answer KVM_GET_API_VERSION: ")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("sys/module/openvswitch/refcnt", "0"),
        ("lib/modules/6.1/modules.dep", "kernel/net/openvswitch/openvswitch.ko.xz: kernel/net/nsh/nsh.ko.xz\n"),
        ("usr/lib/modules/6.1/modules.builtin", "kernel/net/openvswitch/openvswitch.ko\n"),
    ],
)
def test_kernel_module_is_found(tmp_path: Path, file: str, text: str) -> None:
    assert not preflight_facts.kernel_module_available("openvswitch", "6.1", f"{tmp_path}/")
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert preflight_facts.kernel_module_available("openvswitch", "6.1", f"{tmp_path}/")
    assert not preflight_facts.kernel_module_available("vswitch", "6.1", f"{tmp_path}/")


def test_run_json_without_the_program_is_empty() -> None:
    assert preflight_facts.run_json(["/nonexistent/ip"]) == []
    assert preflight_facts.run_json(["echo", "no json"]) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_no_record(text: str) -> None:
    assert preflight_facts.record(text) == {}


def test_record_of_a_deployment() -> None:
    found = preflight_facts.record('{"variables": {"cloud_region": "RegionOne"}, "secrets": ["nova_password"]}')
    assert found == {"variables": {"cloud_region": "RegionOne"}, "secrets": ["nova_password"]}


def test_collect_is_complete() -> None:
    facts = preflight_facts.collect(["/proc/self", "/nonexistent"])
    assert facts["present"] == ["/proc/self"]
    assert facts["shells"]["root"]
    assert "localhost" in facts["hosts_file"]
    assert facts["cpus"] >= 1
    assert isinstance(facts["record"], dict)
    assert facts["memory_mib"] > 0
    assert facts["interfaces"]["lo"]["kind"] == "loopback"
    assert facts["cgroups"] in ("v1", "v2")
    assert facts["disk_free_mib"]["/"] > 0


@pytest.mark.parametrize(
    ("binds", "plain"),
    [
        (["10.0.0.2:5000"], True),
        (["10.0.0.2:5000 ssl crt /etc/haproxy/front.pem"], False),
        (["10.0.0.2:5000 ssl crt /etc/haproxy/front.pem", "10.0.0.2:8774"], True),
        (["unix@/run/haproxy/keystone.plain accept-proxy", "10.0.0.2:5000"], True),
        ([], False),
    ],
)
def test_whether_haproxy_serves_without_tls(binds: list[str], plain: bool) -> None:
    text = "".join(f"    bind {bind}\n" for bind in binds)
    assert preflight_facts.serves_plain(f"# Managed by Kilonova.\n\nlisten keystone\n{text}") is plain
    assert preflight_facts.serves_plain(f"# Of a site.\n{text}") is False


def test_files_in_a_directory(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    (tmp_path / "directory").mkdir()
    assert preflight_facts.files_in(str(tmp_path)) == 1
    assert preflight_facts.files_in(str(tmp_path / "absent")) == 0


def test_where_the_disks_of_guests_are(tmp_path: Path) -> None:
    local, remote, gone = (f"00000000-0000-4000-8000-00000000000{number}" for number in range(3))
    for guest in (local, remote, gone):
        (tmp_path / "var/lib/nova/instances" / guest).mkdir(parents=True)
    (tmp_path / "var/lib/nova/instances" / local / "disk").write_text("QFI")
    definitions = tmp_path / "etc/libvirt/qemu"
    definitions.mkdir(parents=True)
    # As libvirt writes it; the guest has a volume as well.
    text = (
        f"<disk type='network'>\n<source protocol='rbd' name='volumes/volume-1'/>\n</disk>\n<disk type='network'>\n"
        f"<source protocol='rbd' name='vms/{remote}_disk'>"
    )
    (definitions / "instance-00000002.xml").write_text(text)
    (definitions / "instance-00000001.xml").write_text("<source file='/var/lib/nova/instances/x/disk'/>")
    assert preflight_facts.guest_disks(f"{tmp_path}/") == {"local": [local], "ceph": [remote]}
    assert preflight_facts.guest_disks(f"{tmp_path}/absent/") == {"local": [], "ceph": []}


def test_sockets_that_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert preflight_facts.answers(f"127.0.0.1:{port}")
    assert not preflight_facts.answers(f"127.0.0.1:{port}")
    assert not preflight_facts.answers("nothing")
