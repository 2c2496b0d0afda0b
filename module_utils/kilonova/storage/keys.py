# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Derive the identity of a Ceph cluster and the keys of its entities from one secret.

No host has to get a key from another one, and a run that was killed makes the same ones again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
import uuid

# Part of every derivation: changing it changes all keys.
VERSION = "kilonova ceph 1"
# CryptoKey of Ceph: the type (AES-128), the time at which it was made, which nothing compares, and the length.
AES = 1


def derived(seed: str, purpose: str) -> bytes:
    """Return 16 bytes for a purpose. Raises ValueError where the seed is empty.

    HKDF-SHA256 (RFC 5869) without a salt, for one block of output.
    """
    if not seed:
        raise ValueError("the secret that the keys of Ceph are derived from is empty; run the role secrets first")
    extracted = hmac.digest(bytes(hashlib.sha256().digest_size), seed.encode(), "sha256")
    return hmac.digest(extracted, f"{VERSION}/{purpose}".encode() + b"\x01", "sha256")[:16]


def key(seed: str, entity: str) -> str:
    """Return the key of an entity, such as client.glance, as Ceph writes it in keyrings."""
    secret = derived(seed, f"key/{entity}")
    return base64.b64encode(struct.pack("<HIIH", AES, 0, 0, len(secret)) + secret).decode()


def fsid(seed: str) -> str:
    """Return the identifier of the cluster."""
    return str(uuid.UUID(bytes=derived(seed, "fsid"), version=4))


def osd_uuid(cluster: str, host: str, path: str) -> str:
    """Return the identifier of an OSD, the same one in each run."""
    return str(uuid.uuid5(uuid.UUID(cluster), f"osd/{host}/{path}"))
