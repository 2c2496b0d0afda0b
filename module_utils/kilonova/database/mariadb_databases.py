# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Converge MariaDB's databases, users and grants."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.database.mariadb import (
    connect_socket,
    identifier,
    pymysql_is_missing,
    require_pymysql,
    rows,
)
from ansible.module_utils.kilonova.database.mariadb_plan import (
    ALL,
    GRANT_OPTION,
    Account,
    Plan,
    State,
    database_target,
    make_plan,
    problems,
    stored_hashes,
)
from ansible.module_utils.kilonova.system.dry_run import mariadb_is_deployed, not_looked_at
from ansible.module_utils.kilonova.system.locks import wait_for_earlier_call
from ansible.module_utils.kilonova.system.logs import unit_log

if TYPE_CHECKING:
    from pymysql.connections import Connection

ARGUMENT_SPEC: dict[str, Any] = {
    "databases": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "encoding": {"type": "str", "default": "utf8mb4"},
            "collation": {"type": "str"},
        },
    },
    "users": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "host": {"type": "str", "default": "%"},
            "password": {"type": "str", "default": "", "no_log": True},
            "unix_socket": {"type": "bool", "default": False},
            "other_password": {"type": "str", "default": "", "no_log": True},
            "privileges": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "database": {"type": "str", "required": True},
                    "privileges": {"type": "list", "elements": "str", "default": ["ALL"]},
                },
            },
        },
    },
    "remove_insecure_users": {"type": "bool", "default": True},
    "remove_other_hosts": {"type": "bool", "default": False},
    "login_unix_socket": {"type": "path", "default": "/run/mysqld/mysqld.sock"},
    "login_user": {"type": "str", "default": "root"},
}


def read_state(connection: Connection) -> State:
    """Read databases, accounts and all grants. Raises pymysql.MySQLError."""
    state = State()
    for row in rows(
        connection,
        "SELECT SCHEMA_NAME, DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA",
    ):
        name, encoding, collation = row.values()
        state.databases[name] = (encoding, collation)
    by_grantee: dict[str, Account] = {}
    for row in rows(connection, "SELECT User, Host, Priv FROM mysql.global_priv"):
        priv = json.loads(row["Priv"])
        if priv.get("is_role"):
            continue
        account = Account(password_hashes=stored_hashes(priv))
        state.accounts[row["User"], row["Host"]] = account
        by_grantee[f"'{row['User']}'@'{row['Host']}'"] = account

    def note(who: str, target: str, privilege: str, grantable: bool = False) -> None:
        if who in by_grantee:
            by_grantee[who].grants.setdefault(target, set()).update({privilege, *([GRANT_OPTION] if grantable else [])})

    columns = rows(
        connection,
        "SELECT COUNT(*) AS number FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'mysql'"
        " AND TABLE_NAME = 'db' AND COLUMN_NAME LIKE '%\\_priv' AND COLUMN_NAME <> 'Grant_priv'",
    )[0]["number"]
    for row in rows(connection, "SELECT * FROM information_schema.SCHEMA_PRIVILEGES"):
        target = database_target(row["TABLE_SCHEMA"])
        note(row["GRANTEE"], target, row["PRIVILEGE_TYPE"], row["IS_GRANTABLE"] == "YES")
    for account in by_grantee.values():
        for target, privileges in account.grants.items():
            if len(privileges - {GRANT_OPTION}) == columns:
                account.grants[target] = {ALL} | (privileges & {GRANT_OPTION})
    for row in rows(connection, "SELECT * FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE <> 'USAGE'"):
        note(row["GRANTEE"], "*.*", row["PRIVILEGE_TYPE"], row["IS_GRANTABLE"] == "YES")
    for view in ("TABLE_PRIVILEGES", "COLUMN_PRIVILEGES"):
        for row in rows(connection, f"SELECT * FROM information_schema.{view}"):
            target = f"{identifier(row['TABLE_SCHEMA'])}.{identifier(row['TABLE_NAME'])}"
            note(row["GRANTEE"], target, row["PRIVILEGE_TYPE"], row["IS_GRANTABLE"] == "YES")
    for row in rows(connection, "SELECT User, Host, Db, Routine_name, Routine_type FROM mysql.procs_priv"):
        target = f"{row['Routine_type']} {identifier(row['Db'])}.{identifier(row['Routine_name'])}"
        note(f"'{row['User']}'@'{row['Host']}'", target, "EXECUTE")
    for row in rows(connection, "SELECT User, Host, Role FROM mysql.roles_mapping"):
        note(f"'{row['User']}'@'{row['Host']}'", f"role {identifier(row['Role'])}", "MEMBER")
    return state


def finish(module: AnsibleModule, plan: Plan) -> NoReturn:
    """End the module with the steps of the plan."""
    changes = [text for text, statement in plan.steps]
    diff = {"before": plan.before, "after": plan.after} if module._diff else {}
    module.exit_json(changed=bool(changes), changes=changes, diff=diff)
    raise AssertionError("exit_json() ends the module")


def run(module: AnsibleModule) -> None:
    """Converge databases, users and grants."""
    wrong = problems(module.params)
    if wrong:
        module.fail_json(msg="The parameters contradict themselves: " + "; ".join(wrong) + ".")
    if module.check_mode and (pymysql_is_missing() or not mariadb_is_deployed()):
        finish(module, make_plan(State(), module.params))
    require_pymysql(module)
    import pymysql

    wait_for_earlier_call(module, "mariadb_databases")
    socket, login = module.params["login_unix_socket"], module.params["login_user"]
    doing = f"log in over {socket} as {login}"
    try:
        with closing(connect_socket(socket, login)) as connection:
            with connection.cursor() as cursor:
                cursor.execute("SET SESSION sql_mode = ''")
            doing = "read databases, users and grants"
            plan = make_plan(read_state(connection), module.params)
            if plan.steps and not module.check_mode:
                for text, statement in plan.steps:
                    doing = text
                    with connection.cursor() as cursor:
                        cursor.execute(statement)
                doing = "read the result back"
                rest = [text for text, statement in make_plan(read_state(connection), module.params).steps]
                if rest:
                    again = "; ".join(rest)
                    module.fail_json(msg=f"MariaDB accepted every statement, yet these are needed again: {again}")
    except pymysql.MySQLError as error:
        if module.check_mode:
            not_looked_at(module, "MariaDB", error, changes=[])
        module.fail_json(
            msg=f"Cannot {doing}: {error}. Check that MariaDB runs and that {login}@localhost may do this.\n"
            + unit_log("mariadb")
        )
    finish(module, plan)
