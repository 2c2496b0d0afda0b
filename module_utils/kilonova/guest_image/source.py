# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Copy an image from a URL or a file, and accept it only with the right checksum."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import IO

LENGTHS = {"sha256": 64, "sha512": 128}
BLOCK = 1024 * 1024


class SourceError(Exception):
    """The image could not be copied; the message says what to set."""


def parse_checksum(checksum: str) -> tuple[str, str]:
    """Return (algorithm, hexadecimal digest) of ``sha256:...`` or ``sha512:...``."""
    algorithm, _, digest = checksum.strip().partition(":")
    if algorithm not in LENGTHS or not re.fullmatch(rf"[0-9a-fA-F]{{{LENGTHS[algorithm]}}}", digest):
        raise SourceError(
            f"checksum is '{checksum}', but an image from a URL or file needs 'sha256:' with 64 or 'sha512:' with 128 "
            "hexadecimal digits, as its publisher lists them; without it anything could be booted"
        )
    return algorithm, digest.lower()


def copy_checked(source: IO[bytes], out: Path, checksum: str, name: str) -> int:
    """Copy a stream into ``out`` and compare the digest; return the number of bytes.

    ``name`` is the source in messages. The caller removes ``out`` when this raises.
    """
    algorithm, expected = parse_checksum(checksum)
    digest = hashlib.new(algorithm)
    size = 0
    with out.open("wb") as target:
        while block := source.read(BLOCK):
            digest.update(block)
            size += len(block)
            target.write(block)
    if digest.hexdigest() != expected:
        raise SourceError(
            f"{name} has the {algorithm} checksum {digest.hexdigest()} ({size} bytes), but {expected} is expected. "
            "Either the download is damaged, or the publisher replaced the image (then compare with the publisher's "
            "list and set the new checksum), or it was tampered with. It was not kept."
        )
    return size
