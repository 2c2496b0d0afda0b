# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The statements that converge a server."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.kilonova.database.mariadb import identifier, literal
from ansible.module_utils.kilonova.database.mariadb_plan import (
    Account,
    State,
    grantee,
    make_plan,
    password_hash,
    pattern,
    problems,
    stored_hashes,
)

UGLY = "@:/%$#'\"\\ "
TARGET = "`nova\\_api`.*"


def params(**changes: Any) -> dict[str, Any]:
    user = {
        "name": "nova",
        "host": "%",
        "password": UGLY,
        "privileges": [{"database": "nova_api", "privileges": ["ALL"]}],
    }
    return {
        "databases": [{"name": "nova_api", "encoding": "utf8mb4", "collation": None}],
        "users": [user],
        "remove_insecure_users": True,
        "remove_other_hosts": False,
        **changes,
    }


def server(**changes: Any) -> State:
    account = Account(frozenset({password_hash(UGLY)}), {TARGET: {"ALL PRIVILEGES"}})
    state = State(
        {"nova_api": ("utf8mb4", "utf8mb4_general_ci")}, {("nova", "%"): account, ("root", "localhost"): Account()}
    )
    for name, value in changes.items():
        setattr(state, name, value)
    return state


def texts(state: State, wanted: dict[str, Any]) -> list[str]:
    return [text for text, statement in make_plan(state, wanted).steps]


def test_the_hash_is_mariadbs() -> None:
    # SELECT PASSWORD('pw') on MariaDB 11.8
    assert password_hash("pw") == "*D821809F681A40A6E379B50D0463EFAE20BDD122"


def test_a_converged_server_needs_nothing() -> None:
    plan = make_plan(server(), params())
    assert (plan.steps, plan.before, plan.after) == ([], {}, {})


def test_an_empty_server_gets_everything_and_no_password_is_sent() -> None:
    plan = make_plan(State(), params())
    statements = [statement for text, statement in plan.steps]
    assert statements == [
        "CREATE DATABASE `nova_api` CHARACTER SET 'utf8mb4'",
        f"CREATE USER 'nova'@'%' IDENTIFIED VIA mysql_native_password USING '{password_hash(UGLY)}'",
        "GRANT ALL PRIVILEGES ON `nova\\_api`.* TO 'nova'@'%'",
    ]
    assert plan.after["users"]["'nova'@'%'"] == {"password": "***", "privileges": {TARGET: ["ALL PRIVILEGES"]}}
    assert plan.before == {}


def test_another_password_is_set_and_not_shown() -> None:
    state = server()
    state.accounts["nova", "%"].password_hashes = frozenset({password_hash("old")})
    plan = make_plan(state, params())
    assert [text for text, statement in plan.steps] == ["set the password of 'nova'@'%'"]
    assert plan.before["users"] == {"'nova'@'%'": {"password": "*** (old)"}}
    assert password_hash(UGLY) not in repr((plan.before, plan.after))


def test_two_passwords_open_an_account_while_it_changes() -> None:
    user = {**params()["users"][0], "other_password": "new"}
    wanted = params(users=[user])
    (statement,) = [statement for text, statement in make_plan(server(), wanted).steps]
    assert statement == (
        f"ALTER USER 'nova'@'%' IDENTIFIED VIA mysql_native_password USING '{password_hash(UGLY)}'"
        f" OR mysql_native_password USING '{password_hash('new')}' ACCOUNT UNLOCK"
    )
    state = server()
    state.accounts["nova", "%"].password_hashes = frozenset({password_hash(UGLY), password_hash("new")})
    assert make_plan(state, wanted).steps == []
    # The other one is used from now on.
    turned = params(users=[{**user, "password": "new", "other_password": UGLY}])
    assert make_plan(state, turned).steps == []
    assert texts(state, params()) == ["set the password of 'nova'@'%'"]
    assert password_hash("new") not in repr(make_plan(server(), wanted).after)


def test_hashes_of_an_account_with_several_ways_to_log_in() -> None:
    # As MariaDB 10.11 and 11.8 store them; the list stays when the account has one password again.
    own = {"plugin": "mysql_native_password", "authentication_string": "*A"}
    assert stored_hashes(own) == {"*A"}
    assert stored_hashes({**own, "auth_or": [{}]}) == {"*A"}
    second = {"plugin": "mysql_native_password", "authentication_string": "*B"}
    assert stored_hashes({**own, "auth_or": [{}, second], "account_locked": False}) == {"*A", "*B"}
    assert stored_hashes({**own, "auth_or": [second, {}], "account_locked": True}) == set()


@pytest.mark.parametrize(
    "priv",
    [
        {"plugin": "ed25519", "authentication_string": "X"},
        {"plugin": "unix_socket", "account_locked": True},
        {"plugin": "mysql_native_password", "authentication_string": "*X", "account_locked": True},
        {"plugin": "mysql_native_password", "authentication_string": "*X", "auth_or": [{}, {"plugin": "unix_socket"}]},
        {"plugin": "mysql_native_password", "authentication_string": ""},
    ],
)
def test_an_account_with_another_way_in_counts_as_different(priv: dict[str, Any]) -> None:
    assert stored_hashes(priv) == frozenset()


def test_an_account_of_a_system_user() -> None:
    wanted = params()
    wanted["users"] = [{"name": "haproxy", "host": "localhost", "password": "", "unix_socket": True, "privileges": []}]
    assert problems(wanted) == []
    (step,) = make_plan(server(), wanted).steps
    assert step[1] == "CREATE USER 'haproxy'@'localhost' IDENTIFIED VIA unix_socket"
    state = server()
    state.accounts[("haproxy", "localhost")] = Account(stored_hashes({"plugin": "unix_socket"}))
    assert make_plan(state, wanted).steps == []


def test_privileges_beyond_the_listed_ones_are_revoked_after_the_grants() -> None:
    state = server()
    grants = {
        "`nova_api`.*": {"ALL PRIVILEGES"},
        "*.*": {"PROCESS", "GRANT OPTION"},
        "`mysql`.`user`": {"SELECT"},
        "role `admins`": {"MEMBER"},
    }
    state.accounts["nova", "%"].grants = grants
    assert texts(state, params()) == [
        "grant ALL PRIVILEGES on `nova\\_api`.* to 'nova'@'%'",
        "revoke ALL PRIVILEGES on `nova_api`.* from 'nova'@'%'",
        "revoke GRANT OPTION on *.* from 'nova'@'%'",
        "revoke ALL PRIVILEGES on *.* from 'nova'@'%'",
        "revoke ALL PRIVILEGES on `mysql`.`user` from 'nova'@'%'",
        "revoke role `admins` from 'nova'@'%'",
    ]


def test_all_is_narrowed_and_single_privileges_are_corrected() -> None:
    wanted = params()
    wanted["users"][0]["privileges"] = [{"database": "nova_api", "privileges": ["select", "lock  tables"]}]
    assert texts(server(), wanted) == [
        "revoke ALL PRIVILEGES on `nova\\_api`.* from 'nova'@'%'",
        "grant LOCK TABLES, SELECT on `nova\\_api`.* to 'nova'@'%'",
    ]
    state = server()
    state.accounts["nova", "%"].grants = {TARGET: {"SELECT", "DROP"}}
    assert texts(state, wanted) == [
        "grant LOCK TABLES on `nova\\_api`.* to 'nova'@'%'",
        "revoke DROP on `nova\\_api`.* from 'nova'@'%'",
    ]


def test_insecure_and_left_over_accounts_are_dropped() -> None:
    state = server()
    for key in (("", "localhost"), ("root", "%"), ("root", "127.0.0.1"), ("nova", "10.0.0.1"), ("app", "%")):
        state.accounts[key] = Account()
    assert texts(state, params()) == ["drop user ''@'localhost'", "drop user 'root'@'%'"]
    assert texts(state, params(remove_insecure_users=False, remove_other_hosts=True)) == ["drop user 'nova'@'10.0.0.1'"]


def test_a_character_set_is_corrected_and_a_collation_only_when_listed() -> None:
    state = server(databases={"nova_api": ("latin1", "latin1_swedish_ci")})
    plan = make_plan(state, params())
    assert plan.before["databases"] == {"nova_api": {"encoding": "latin1"}}
    wanted = params(databases=[{"name": "nova_api", "encoding": "utf8mb4", "collation": "utf8mb4_bin"}])
    assert texts(server(), wanted) == ["set the character set of database nova_api"]


def test_contradictions_are_found() -> None:
    wanted = params()
    wanted["users"] = [*wanted["users"], {**wanted["users"][0], "password": ""}]
    assert problems(params()) == []
    neither = "user 'nova'@'%' needs either a password or unix_socket"
    assert problems(wanted) == ["user 'nova'@'%' is listed 2 times", neither]


def test_names_are_quoted() -> None:
    assert pattern("a_b%c\\d") == "a\\_b\\%c\\\\d"
    assert identifier("a`b") == "`a``b`"
    assert literal("a'b\\") == "'a''b\\\\'"
    assert grantee("o'x", "%") == "'o''x'@'%'"
