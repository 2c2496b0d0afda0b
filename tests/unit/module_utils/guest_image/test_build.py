# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What the guest image is made of: file formats, packages, and the guest's own scripts."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.module_utils.kilonova.guest_image import build, disk, packages

FILES = Path(__file__).resolve().parents[4] / "roles" / "guest_image" / "files"
SCRIPTS = [path for path in FILES.rglob("*") if path.is_file() and path.read_text().startswith("#!")]


def read_cpio(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """{name: (mode, content)} of a newc archive."""
    found: dict[str, tuple[int, bytes]] = {}
    offset = 0
    while True:
        assert archive[offset : offset + 6] == b"070701"
        fields = [int(archive[offset + 6 + 8 * index : offset + 14 + 8 * index], 16) for index in range(13)]
        name_end = offset + 110 + fields[11]
        name = archive[offset + 110 : name_end - 1].decode()
        start = -(-name_end // 4) * 4
        content = archive[start : start + fields[6]]
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], content)
        offset = -(-(start + fields[6]) // 4) * 4


def test_cpio_round_trip() -> None:
    entries = [disk.Entry("bin", 0o040755), disk.Entry("bin/a", 0o100755, b"12345"), disk.Entry("b", 0o100644, b"")]
    archive = disk.cpio(entries)
    assert len(archive) % 4 == 0
    assert read_cpio(archive) == {entry.name: (entry.mode, entry.content) for entry in entries}


def test_boot_record() -> None:
    fat = disk.Partition(1 << 20, 16 << 20, disk.PARTITION_FAT16_LBA, bootable=True)
    linux = disk.Partition(17 << 20, 100 << 20, disk.PARTITION_LINUX)
    record = disk.boot_record(b"\xeb" * 440, [fat, linux], 0x12345678)
    assert len(record) == 512 and record[510:] == b"\x55\xaa" and record[440:444] == bytes.fromhex("78563412")
    assert record[446] == 0x80 and record[450] == 0x0E and struct.unpack_from("<II", record, 454) == (2048, 32768)
    assert record[462] == 0 and record[466] == 0x83 and struct.unpack_from("<II", record, 470) == (34816, 204800)
    with pytest.raises(ValueError, match="441 bytes"):
        disk.boot_record(bytes(441), [fat], 0)


def read_qcow2(path: Path) -> bytes:
    """The disk's content, read by the format's rules."""
    data = path.read_bytes()
    size, l1_size, l1_offset = struct.unpack_from(">Q", data, 24)[0], *struct.unpack_from(">IQ", data, 36)
    out = bytearray(size)
    for table in range(l1_size):
        l2_offset = struct.unpack_from(">Q", data, l1_offset + 8 * table)[0] & 0x00FFFFFFFFFFFE00
        for index, entry in enumerate(struct.unpack_from(">8192Q", data, l2_offset)):
            if entry:
                position = (table * 8192 + index) * 65536
                content = data[(entry & 0x00FFFFFFFFFFFE00) :][:65536]
                out[position : position + 65536] = content[: max(0, size - position)]
    return bytes(out)


def test_qcow2_round_trip(tmp_path: Path) -> None:
    raw, image = tmp_path / "raw", tmp_path / "image"
    with raw.open("wb") as file:
        file.write(b"first")
        file.seek(3 * 65536 - 3)
        file.write(b"over the edge")
        file.truncate(600 * 1024 * 1024 + 512)
        file.seek(600 * 1024 * 1024)
        file.write(b"last")
    disk.write_qcow2(raw, image)
    assert image.stat().st_size < 12 * 65536
    assert disk.disk_format(image) == ("qcow2", 600 * 1024 * 1024 + 512)
    assert read_qcow2(image) == raw.read_bytes()
    if shutil.which("qemu-img"):
        checked = subprocess.run(
            ["qemu-img", "check", "--output=json", str(image)], check=True, capture_output=True, text=True
        )
        assert json.loads(checked.stdout)["check-errors"] == 0
        subprocess.run(["qemu-img", "compare", str(raw), str(image)], check=True, capture_output=True)


def test_qcow2_refuses_odd_sizes(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"x" * 513)
    with pytest.raises(ValueError, match="multiple of 512"):
        disk.write_qcow2(tmp_path / "raw", tmp_path / "image")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the reader is for the guest's architecture")
def test_elf_needed_agrees_with_the_loader() -> None:
    program = Path(os.path.realpath("/bin/ls"))
    loaded = subprocess.run(["ldd", str(program)], check=True, capture_output=True, text=True).stdout
    needed = disk.elf_needed(program.read_bytes())
    assert "libc.so.6" in needed and all(soname in loaded for soname in needed)
    assert disk.elf_needed(b"#!/bin/sh\n") == []


def kernel_module(depends: str) -> bytes:
    return b"\x7fELF...license=GPL\0depends=" + depends.encode() + b"\0retpoline=Y\0"


def test_modules_are_loaded_after_what_they_need() -> None:
    available = {
        "virtio_net": kernel_module("net-failover,virtio"),
        "net_failover": kernel_module("failover"),
        "failover": kernel_module(""),
        "button": kernel_module(""),
    }
    order = build.module_order(("virtio_net", "button", "ext4"), available, {"ext4", "virtio"}, set())
    assert order == ["failover", "net_failover", "virtio_net", "button"]
    assert build.module_order(("virtio_net",), available, {"virtio"}, {"net_failover"}) == ["virtio_net"]
    with pytest.raises(build.BuildError, match="no module virtio, which virtio_net needs"):
        build.module_order(("virtio_net",), available, set(), set())


def test_signature_is_cut_off() -> None:
    module = kernel_module("")
    signed = module + b"S" * 40 + bytes(8) + struct.pack(">I", 40) + b"~Module signature appended~\n"
    assert build.without_signature(signed) == module
    assert build.without_signature(module) == module


def test_missing_library_is_named() -> None:
    program = Path(os.path.realpath(sys.executable)).read_bytes()
    with pytest.raises(build.BuildError, match=r"usr/bin/python needs the library lib\S+\.so\.\d+, which is in none"):
        build.needed_libraries({"usr/bin/python": program}, {})


def test_password_hash() -> None:
    hashed = build.password_hash("p@:/%$#'\"\\ s")
    assert hashed.startswith("$6$") and hashed != build.password_hash("p@:/%$#'\"\\ s")
    assert build.password_hash("p@:/%$#'\"\\ s", hashed) == hashed
    assert build.password_hash("other", hashed) != hashed


def test_accounts() -> None:
    files = {file.path: file for file in build.account_files("guest", "$6$x$y")}
    assert files["etc/shadow"].mode == 0o600
    assert files["etc/shadow"].content == "root:*:20000::::::\nguest:$6$x$y:20000::::::\n"
    locked = {file.path: file for file in build.account_files("guest", "")}
    assert "guest:*:" in locked["etc/shadow"].content


def test_candidate_versions() -> None:
    shown = (
        "Package: libc6\nArchitecture: amd64\nVersion: 2.41-12\nDescription: x\n Version: no\n\n"
        "Package: dropbear-bin\nVersion: 2025.89-1~deb13u1\n"
    )
    assert packages.candidate_versions(shown) == {"libc6": "2.41-12", "dropbear-bin": "2025.89-1~deb13u1"}


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg on this computer")
def test_files_are_read_out_of_a_package(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    )
    (tree / "usr/lib").mkdir(parents=True)
    (tree / "sbin").mkdir()
    (tree / "usr/lib/libx.so.1.2").write_bytes(b"library")
    (tree / "usr/lib/libx.so.1").symlink_to("libx.so.1.2")
    (tree / "sbin/tool").write_bytes(b"tool")
    (tree / "sbin/tool").chmod(0o4755)
    deb = tmp_path / "x.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", str(tree), str(deb)], check=True, capture_output=True)
    assert packages.extract(deb, lambda path: True) == {
        "usr/lib/libx.so.1.2": (0o644, b"library"),
        "usr/lib/libx.so.1": (0o644, b"library"),
        "usr/sbin/tool": (0o4755, b"tool"),
    }
    deb.write_bytes(b"not a package")
    with pytest.raises(packages.PackageError, match="could not read x.deb"):
        packages.extract(deb, lambda path: True)


def test_modules_are_unpacked_when_asked_for() -> None:
    unpacked = build._Unpacked({"a": ("kernel/a.ko", b"plain")})
    assert "a" in unpacked and "b" not in unpacked and unpacked["a"] == b"plain"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_guest_scripts_are_valid_shell(script: Path) -> None:
    subprocess.run(["sh", "-n", str(script)], check=True)


def dhcp(tmp_path: Path, event: str, present: str = "", **lease: str) -> list[str]:
    """Run the guest's DHCP script with a stand-in for ip, which shows the present address; return the ip commands."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    log = tmp_path / "ip.log"
    log.write_text("")
    shown = f'*"addr show"*) echo "2: eth0 inet {present} x";;'
    (tools / "ip").write_text(f'#!/bin/sh\ncase "$*" in {shown} *) echo "$@" >>{log};; esac\n')
    (tools / "ip").chmod(0o755)
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", "DHCP_STATE": str(tmp_path / "state"), "interface": "eth0"}
    subprocess.run(["sh", str(FILES / "root" / "dhcp"), event], check=True, env={**environment, **lease})
    return log.read_text().splitlines()


LEASE = {"ip": "192.168.1.9", "mask": "24", "router": "192.168.1.1"}


def test_dhcp_with_a_router(tmp_path: Path) -> None:
    commands = dhcp(tmp_path, "bound", **LEASE)
    assert "addr add 192.168.1.9/24 brd + dev eth0" in commands
    assert "route replace default via 192.168.1.1 dev eth0" in commands
    assert (tmp_path / "state" / "address").read_text() == "192.168.1.9\n"


def test_dhcp_classless_routes_replace_the_router(tmp_path: Path) -> None:
    """As OVN sends them: the metadata service is behind the DHCP port (RFC 3442)."""
    routes = "169.254.169.254/32 192.168.1.2 0.0.0.0/0 192.168.1.254 10.9.0.0/16 0.0.0.0"
    commands = dhcp(tmp_path, "bound", **LEASE, staticroutes=routes, mtu="1442")
    assert "link set eth0 mtu 1442" in commands
    assert [command for command in commands if command.startswith("route")] == [
        "route replace 10.9.0.0/16 dev eth0",
        "route replace 0.0.0.0/0 via 192.168.1.254 dev eth0",
        "route replace 169.254.169.254/32 via 192.168.1.2 dev eth0",
    ]


def test_dhcp_renewal_removes_routes_that_are_gone_and_keeps_the_address(tmp_path: Path) -> None:
    dhcp(tmp_path, "bound", **LEASE, staticroutes="10.1.0.0/16 192.168.1.3 10.2.0.0/16 192.168.1.3")
    commands = dhcp(tmp_path, "renew", "192.168.1.9/24", **LEASE, staticroutes="10.2.0.0/16 192.168.1.3")
    assert commands == [
        "route del 10.1.0.0/16 via 192.168.1.3 dev eth0",
        "route replace 10.2.0.0/16 via 192.168.1.3 dev eth0",
    ]


def test_dhcp_deconfig_keeps_the_link_up(tmp_path: Path) -> None:
    assert dhcp(tmp_path, "deconfig") == ["link set eth0 up", "-4 addr flush dev eth0"]
