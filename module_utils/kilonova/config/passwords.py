# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Derive passwords from a secret, so that each compute has its own and the inventory keeps one value."""

from __future__ import annotations

import hashlib
import hmac

# Part of every derivation: changing it changes all passwords.
VERSION = "kilonova password 1"


def derived_password(secret: str, purpose: str, holder: str) -> str:
    """Return 64 hexadecimal digits that nobody without the secret can compute. Raises ValueError where it is empty.

    HKDF-SHA256 (RFC 5869) without a salt, for one block of output.
    """
    if not secret:
        raise ValueError("the secret that passwords are derived from is empty; run the role secrets first")
    if "/" in purpose:
        raise ValueError(f"the purpose '{purpose}' contains a slash, which ends it")
    extracted = hmac.digest(bytes(hashlib.sha256().digest_size), secret.encode(), "sha256")
    return hmac.digest(extracted, f"{VERSION}/{purpose}/{holder}".encode() + b"\x01", "sha256").hex()
