# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Sizes of files that OSDs are made of."""

from __future__ import annotations

import re

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def bytes_of(size: str) -> int:
    """Return the bytes of a size such as 20G. Raises ValueError."""
    match = re.fullmatch(r"(\d+)\s*([KMGT])(iB)?", size.strip())
    if not match:
        raise ValueError(f"'{size}' is no size: a number and K, M, G or T, such as 20G, are one")
    return int(match[1]) * UNITS[match[2]]
