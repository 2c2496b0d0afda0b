# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters for accounts whose passwords change while they are in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Service = Mapping[str, Any]

# Keys of maps with accounts: the key of the name, and the secret.
ACCOUNTS = {"messaging": ("user", "{}_messaging_password"), "users": ("name", "{}_password")}


def other_accounts(
    services: Iterable[Service], key: str, turn: str, other_turn: str, passwords: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return services with the accounts of a key (messaging, users) that are in use in the other turn.

    turn: end of the names in use. passwords: of the other accounts, by the name of the secret.
    """
    name, secret = ACCOUNTS[key]
    return [
        {
            "name": service["name"],
            key: [
                dict(account)
                | {name: account[name].removesuffix(turn) + other_turn}
                | {"password": passwords.get(secret.format(service["name"]), "")}
                for account in service[key]
            ],
        }
        for service in services
        if service.get(key)
    ]


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"other_accounts": other_accounts}
