# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The second account of a service: like the one in use, with another name and password."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.filter import accounts
from plugins.filter.services import messaging_of


@pytest.mark.parametrize(("turn", "other_turn"), [("", "2"), ("2", "")])
def test_the_other_account_of_a_service_is_like_the_one_in_use(turn: str, other_turn: str) -> None:
    account = {"user": f"nova{turn}", "password": "in use", "virtual_host": "v", "read": "^x$"}
    services: list[dict[str, Any]] = [{"name": "nova", "messaging": [account]}, {"name": "glance"}]
    passwords = {"nova_messaging_password": "other", "nova_password": "not this one"}
    found = accounts.other_accounts(services, "messaging", turn, other_turn, passwords)
    assert found == [{"name": "nova", "messaging": [{**account, "user": f"nova{other_turn}", "password": "other"}]}]
    (without,) = messaging_of(accounts.other_accounts(services, "messaging", turn, other_turn, {}))
    assert (without["user"], without["password"]) == (f"nova{other_turn}", "")
    users = [{"name": "nova", "users": [{"name": f"nova{turn}", "password": "in use", "roles": ["x"]}]}]
    found = accounts.other_accounts(users, "users", turn, other_turn, passwords)
    assert found[0]["users"] == [{"name": f"nova{other_turn}", "password": "not this one", "roles": ["x"]}]
