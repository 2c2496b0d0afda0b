# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filter for the definitions file of RabbitMQ."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any


def rabbitmq_password_hash(password: str) -> str:
    """Return base64(salt + sha256(salt + password)).

    The salt is derived from the password, so that an unchanged password does not change the file. Only RabbitMQ can
    read the file, and the password is random. Format:
    https://www.rabbitmq.com/docs/passwords#computing-password-hash
    """
    data = password.encode()
    salt = hashlib.sha256(b"rabbitmq definitions" + data).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + data).digest()).decode()


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "rabbitmq_password_hash": rabbitmq_password_hash,
        }
