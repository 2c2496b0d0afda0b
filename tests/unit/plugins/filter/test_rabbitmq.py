# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The password hash is one that RabbitMQ accepts."""

from __future__ import annotations

import base64
import hashlib

import pytest

from plugins.filter import rabbitmq as filters

ODD = "@:/%$#'\"\\ ü"


@pytest.mark.parametrize("password", ["secret", ODD, "x" * 200])
def test_rabbitmq_can_check_a_password_against_its_hash(password: str) -> None:
    # As RabbitMQ does: the salt is the first four bytes, the rest is the hash of salt and password.
    stored = base64.b64decode(filters.rabbitmq_password_hash(password), validate=True)
    salt, digest = stored[:4], stored[4:]
    assert hashlib.sha256(salt + password.encode()).digest() == digest
    assert hashlib.sha256(salt + b"other").digest() != digest


def test_rabbitmq_hash_changes_with_the_password_only() -> None:
    one, same, other = (filters.rabbitmq_password_hash(password) for password in ("one", "one", "other"))
    assert one == same
    assert one[:5] != other[:5], "the salts differ too"
