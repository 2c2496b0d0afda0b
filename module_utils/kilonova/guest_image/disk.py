# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""File formats of the guest image: cpio archive, partition table, ELF dependencies, qcow2.

Implemented here to need no further packages on the host.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SECTOR = 512
QCOW2_MAGIC = b"QFI\xfb"
QCOW2_CLUSTER_BITS = 16
QCOW2_CLUSTER = 1 << QCOW2_CLUSTER_BITS
QCOW2_COPIED = 1 << 63
PARTITION_FAT16_LBA = 0x0E
PARTITION_LINUX = 0x83


@dataclass(frozen=True)
class Entry:
    """A member of a cpio archive; mode includes the type bits."""

    name: str
    mode: int
    content: bytes = b""


def cpio(entries: Iterable[Entry]) -> bytes:
    """Return a cpio archive in the format of an initramfs ("newc"), owned by root, without times."""
    out = bytearray()
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], start=1):
        name = entry.name.encode() + b"\0"
        is_directory = (entry.mode & 0o170000) == 0o040000
        fields = (number, entry.mode, 0, 0, 2 if is_directory else 1, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        out += b"\0" * (-len(out) % 4)
        out += entry.content
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


@dataclass(frozen=True)
class Partition:
    """A primary partition; start and size in bytes, multiples of 512."""

    start: int
    size: int
    kind: int
    bootable: bool = False


def boot_record(code: bytes, partitions: list[Partition], disk_id: int) -> bytes:
    """Return sector 0: boot code, disk id and partition table."""
    if len(code) > 440:
        raise ValueError(f"the boot code has {len(code)} bytes; sector 0 has room for 440")
    table = b""
    for partition in partitions:
        # Cylinder/head/sector addresses are marked as out of range: readers use the sector numbers.
        beyond = b"\xfe\xff\xff"
        table += (
            struct.pack("<B", 0x80 if partition.bootable else 0)
            + beyond
            + struct.pack("<B", partition.kind)
            + beyond
            + struct.pack("<II", partition.start // SECTOR, partition.size // SECTOR)
        )
    return code.ljust(440, b"\0") + struct.pack("<IH", disk_id, 0) + table.ljust(64, b"\0") + b"\x55\xaa"


def elf_needed(data: bytes) -> list[str]:
    """Return the sonames that a 64-bit little-endian ELF file needs; [] for other files."""
    if data[:6] != b"\x7fELF\x02\x01":
        return []
    (program_offset,) = struct.unpack_from("<Q", data, 32)
    entry_size, count = struct.unpack_from("<HH", data, 54)
    segments = [struct.unpack_from("<IIQQQQ", data, program_offset + index * entry_size) for index in range(count)]
    dynamic = next((segment for segment in segments if segment[0] == 2), None)
    if dynamic is None:
        return []
    tags = [struct.unpack_from("<qQ", data, offset) for offset in range(dynamic[2], dynamic[2] + dynamic[5], 16)]
    strings_address = next(value for tag, value in tags if tag == 5)
    # The string table is given as an address in memory; the load segments map it to an offset in the file.
    strings = next(
        strings_address - address + offset
        for kind, _flags, offset, address, _physical, size in segments
        if kind == 1 and address <= strings_address < address + size
    )
    names = []
    for tag, value in tags:
        if tag == 0:
            break
        if tag == 1:
            start = strings + value
            names.append(data[start : data.index(b"\0", start)].decode())
    return names


def module_depends(data: bytes) -> list[str]:
    """Return the dependencies of an uncompressed kernel module."""
    start = data.find(b"\0depends=")
    if start < 0:
        return []
    value = data[start + 9 : data.index(b"\0", start + 9)].decode()
    return [name.replace("-", "_") for name in value.split(",") if name]


def data_clusters(raw: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield (cluster number, content) of the clusters of a raw disk that are not all zero."""
    zero = b"\0" * QCOW2_CLUSTER
    position = 0
    while position < size:
        try:
            # Skip holes of the sparse file.
            position = os.lseek(raw.fileno(), position, os.SEEK_DATA)
        except OSError:
            return
        number = position // QCOW2_CLUSTER
        raw.seek(number * QCOW2_CLUSTER)
        content = raw.read(QCOW2_CLUSTER).ljust(QCOW2_CLUSTER, b"\0")
        if content != zero:
            yield number, content
        position = (number + 1) * QCOW2_CLUSTER


def write_qcow2(raw_path: Path, out_path: Path) -> None:
    """Write a raw disk as qcow2 version 3: no backing file, no compression, clusters of zeroes left out.

    Format: https://www.qemu.org/docs/master/interop/qcow2.html. Not compressed, because the kernel is compressed
    already and reading compressed clusters takes time at every boot.
    """
    size = raw_path.stat().st_size
    if size % SECTOR:
        raise ValueError(f"{raw_path} has {size} bytes, not a multiple of {SECTOR}")
    per_table = QCOW2_CLUSTER // 8
    clusters = -(-size // QCOW2_CLUSTER)
    tables = -(-clusters // per_table)
    # Layout: header, refcount table, refcount block, level 1 table, level 2 tables, data.
    if tables * 8 > QCOW2_CLUSTER:
        raise ValueError(f"{raw_path} is too large for one level 1 table: {size} bytes")
    table_start = 4
    next_cluster = table_start + tables
    level2 = [[0] * per_table for _ in range(tables)]
    with raw_path.open("rb") as raw, out_path.open("wb") as out:
        for number, content in data_clusters(raw, size):
            out.seek(next_cluster * QCOW2_CLUSTER)
            out.write(content)
            level2[number // per_table][number % per_table] = next_cluster * QCOW2_CLUSTER | QCOW2_COPIED
            next_cluster += 1
        if next_cluster > QCOW2_CLUSTER // 2:
            raise ValueError(f"{raw_path} has too much data for one refcount block: {next_cluster} clusters")
        level1 = [(table_start + index) * QCOW2_CLUSTER | QCOW2_COPIED for index in range(tables)]
        header = struct.pack(
            ">4sIQIIQIIQQIIQQQQII",
            QCOW2_MAGIC, 3, 0, 0, QCOW2_CLUSTER_BITS, size, 0, tables, 3 * QCOW2_CLUSTER,
            QCOW2_CLUSTER, 1, 0, 0, 0, 0, 0, 4, 104,
        )  # fmt: skip
        out.seek(0)
        out.write(header)
        out.seek(QCOW2_CLUSTER)
        out.write(struct.pack(">Q", 2 * QCOW2_CLUSTER))
        out.seek(2 * QCOW2_CLUSTER)
        out.write(struct.pack(">H", 1) * next_cluster)
        out.seek(3 * QCOW2_CLUSTER)
        out.write(b"".join(struct.pack(">Q", entry) for entry in level1).ljust(QCOW2_CLUSTER, b"\0"))
        for index, table in enumerate(level2):
            out.seek((table_start + index) * QCOW2_CLUSTER)
            out.write(struct.pack(f">{per_table}Q", *table))
        out.truncate(next_cluster * QCOW2_CLUSTER)


def disk_format(path: Path) -> tuple[str, int]:
    """Return the disk_format for Glance (qcow2 or raw) and the size in bytes that a guest sees."""
    with path.open("rb") as image:
        head = image.read(32)
    if head[:4] == QCOW2_MAGIC:
        return "qcow2", int(struct.unpack_from(">Q", head, 24)[0])
    return "raw", path.stat().st_size
