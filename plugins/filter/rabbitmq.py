# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters for RabbitMQ's definitions file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any


def rabbitmq_password_hash(password: str) -> str:
    """
    A password as RabbitMQ keeps it: base64(salt + sha256(salt + password)).

    The salt comes from the password itself so that an unchanged password gives an unchanged file. The file is
    readable by RabbitMQ only, and the password is as random as the hash.
    Format: https://www.rabbitmq.com/docs/passwords#computing-password-hash
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
