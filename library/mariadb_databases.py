#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Converge MariaDB's databases, users and grants in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mariadb_databases
short_description: Converge MariaDB databases, users and grants in one call
version_added: "0.1.0"
description:
  - Creates the databases, users and grants that are listed, corrects those that differ, and revokes from the listed
    users what is not listed. Databases and users that are not listed are left alone, except insecure accounts.
  - Logs in over the unix socket as root, so no password is needed.
  - A password is compared by its hash, SHA1(SHA1(password)) as the authentication plugin C(mysql_native_password)
    stores it in C(mysql.global_priv). Only the hash is sent to the server, so that no log of statements ever holds a
    password. A trial login was not chosen, because it depends on which account and which network path a login happens
    to match, counts as a failed connection, and says nothing for an account that is locked.
  - A grant is made on exactly the database that is named. MariaDB reads C(_) and C(%) in a grant as wildcards
    (https://mariadb.com/kb/en/grant/#database-privileges), so they are escaped. An unescaped grant is revoked after
    the exact one was made.
options:
  databases:
    description: Databases that must exist.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the database.
        type: str
        required: true
      encoding:
        description: Default character set of the database. Tables that exist keep theirs.
        type: str
        default: utf8mb4
      collation:
        description: Default collation. When omitted, any collation of O(databases[].encoding) will do.
        type: str
  users:
    description: Users that must exist.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the user.
        type: str
        required: true
      host:
        description: Where the user may connect from, as MariaDB writes it.
        type: str
        default: "%"
      password:
        description: Password, not empty. It may contain any character.
        type: str
        required: true
      privileges:
        description: Everything that the user may do. Other privileges, roles and grant options are revoked.
        type: list
        elements: dict
        default: []
        suboptions:
          database:
            description: Name of the database, not a pattern.
            type: str
            required: true
          privileges:
            description: Privileges on all of the database's tables, as C(GRANT) names them.
            type: list
            elements: str
            default: [ALL]
  remove_insecure_users:
    description: Drop accounts without a name and C(root) accounts that may connect from another host.
    type: bool
    default: true
  remove_other_hosts:
    description:
      - Drop accounts with the name of a listed user and a host that is not listed for it.
      - Such an account, left from an earlier address, wins over the listed one where its host is more specific.
    type: bool
    default: false
  login_unix_socket:
    description: MariaDB's socket.
    type: path
    default: /run/mysqld/mysqld.sock
  login_user:
    description: Account to log in as over the socket.
    type: str
    default: root
attributes:
  check_mode:
    support: full
    description: Reads the state and reports what would change; all of it where MariaDB is not installed yet.
  diff_mode:
    support: full
    description: Shows what differs; passwords appear as C(***).
notes:
  - Fails when MariaDB refuses the login or a statement, and when the result, read back, is not what was asked for.
requirements: [python3-pymysql]
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Create Nova's databases and user
  mariadb_databases:
    databases:
      - name: nova
      - name: nova_api
      - name: nova_cell0
    users:
      - name: nova
        password: "{{ nova_database_password }}"
        privileges:
          - database: nova
          - database: nova_api
          - database: nova_cell0
      - name: backup
        host: localhost
        password: "{{ backup_database_password }}"
        privileges:
          - database: nova
            privileges: [SELECT, LOCK TABLES]
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode, one sentence each, in the order of execution.
  returned: always
  type: list
  elements: str
  sample: ["create database nova", "grant ALL PRIVILEGES on nova\\_api to 'nova'@'%'"]
not_looked_at:
  description: Why a dry run could not see, though MariaDB is installed. RV(ignore:changed) is then false.
  returned: in check mode, when MariaDB does not answer
  type: str
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.database.mariadb import (
    IMPORT_ERROR,
    connect_socket,
    identifier,
    literal,
    require_pymysql,
    rows,
)
from ansible.module_utils.kilonova.system.dry_run import mariadb_is_deployed, not_looked_at
from ansible.module_utils.kilonova.system.locks import wait_for_earlier_call
from ansible.module_utils.kilonova.system.logs import unit_log

if TYPE_CHECKING:
    from pymysql.connections import Connection

ALL = "ALL PRIVILEGES"
GRANT_OPTION = "GRANT OPTION"
PLUGIN = "mysql_native_password"
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
MASK = "***"


@dataclass
class Account:
    """A user account. ``grants`` maps where a privilege holds (``*.*``, ``db.*``, ...) to the privileges there."""

    password_hash: str | None = None
    grants: dict[str, set[str]] = field(default_factory=dict)


@dataclass
class State:
    """What the server has. Databases map to (character set, collation), accounts to (name, host)."""

    databases: dict[str, tuple[str, str]] = field(default_factory=dict)
    accounts: dict[tuple[str, str], Account] = field(default_factory=dict)


@dataclass
class Plan:
    """Statements with what they do, and the difference they make."""

    steps: list[tuple[str, str]] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)

    def add(self, text: str, statement: str) -> None:
        self.steps.append((text, statement))

    def differ(self, kind: str, name: str, before: Any, after: Any) -> None:
        for side, value in ((self.before, before), (self.after, after)):
            if value is not None:
                side.setdefault(kind, {})[name] = value


def password_hash(password: str) -> str:
    """What mysql_native_password stores (https://mariadb.com/kb/en/authentication-plugin-mysql_native_password/)."""
    return "*" + hashlib.sha1(hashlib.sha1(password.encode()).digest()).hexdigest().upper()


def stored_hash(priv: dict[str, Any]) -> str | None:
    """The hash in a row of mysql.global_priv, None for an account with other ways to log in or a locked one."""
    if priv.get("plugin") != PLUGIN or priv.get("auth_or") or priv.get("account_locked"):
        return None
    return str(priv.get("authentication_string", "")) or None


def grantee(name: str, host: str) -> str:
    """The account as information_schema and SQL write it."""
    return f"{literal(name)}@{literal(host)}"


def pattern(database: str) -> str:
    """The database name as a grant has to write it to mean that database only."""
    return database.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%")


def privilege_set(names: list[str]) -> set[str]:
    wanted = {" ".join(name.upper().split()) for name in names}
    return {ALL} if wanted & {"ALL", ALL} else wanted


def database_target(name_pattern: str) -> str:
    return f"{identifier(name_pattern)}.*"


def read_state(connection: Connection) -> State:
    """Read databases, accounts and every kind of grant. Raises pymysql.MySQLError."""
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
        account = Account(password_hash=stored_hash(priv))
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


def plan_databases(plan: Plan, state: State, databases: list[dict[str, Any]]) -> None:
    for wanted in databases:
        name, encoding, collation = wanted["name"], wanted["encoding"], wanted["collation"]
        clause = f"CHARACTER SET {literal(encoding)}" + (f" COLLATE {literal(collation)}" if collation else "")
        after = {"encoding": encoding, **({"collation": collation} if collation else {})}
        if name not in state.databases:
            plan.add(f"create database {name}", f"CREATE DATABASE {identifier(name)} {clause}")
            plan.differ("databases", name, None, after)
            continue
        current = dict(zip(("encoding", "collation"), state.databases[name], strict=True))
        before = {key: current[key] for key in after}
        if before != after:
            plan.add(f"set the character set of database {name}", f"ALTER DATABASE {identifier(name)} {clause}")
            plan.differ("databases", name, before, after)


def wanted_grants(user: dict[str, Any]) -> dict[str, set[str]]:
    grants: dict[str, set[str]] = {}
    for entry in user["privileges"]:
        target = database_target(pattern(entry["database"]))
        grants[target] = privilege_set([*entry["privileges"], *grants.get(target, set())])
    return grants


def plan_user(plan: Plan, state: State, user: dict[str, Any]) -> None:
    key = (user["name"], user["host"])
    who = grantee(*key)
    wanted = wanted_grants(user)
    account = state.accounts.get(key)
    wanted_hash = password_hash(user["password"])
    by_password = f"IDENTIFIED VIA {PLUGIN} USING {literal(wanted_hash)}"
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    if account is None:
        plan.add(f"create user {who}", f"CREATE USER {who} {by_password}")
        after["password"] = MASK
    elif account.password_hash != wanted_hash:
        plan.add(f"set the password of {who}", f"ALTER USER {who} {by_password} ACCOUNT UNLOCK")
        before["password"], after["password"] = f"{MASK} (old)", f"{MASK} (new)"
    current = account.grants if account else {}
    # Grants first: replacing one grant by another must not leave the service without any in between.
    for target, privileges in wanted.items():
        missing = privileges - current.get(target, set())
        # ALL also stands for every single privilege, so it does not leave single ones missing.
        if missing and ALL not in current.get(target, set()):
            names = ", ".join(sorted(missing))
            plan.add(f"grant {names} on {target} to {who}", f"GRANT {names} ON {target} TO {who}")
        elif missing:
            plan_narrow(plan, who, target, privileges)
    for target, privileges in current.items():
        plan_revoke(plan, who, target, privileges, wanted.get(target, set()))
    if current != wanted:
        changed = [target for target in sorted({*current, *wanted}) if current.get(target) != wanted.get(target)]
        before["privileges"] = {target: sorted(current[target]) for target in changed if target in current}
        after["privileges"] = {target: sorted(wanted[target]) for target in changed if target in wanted}
    if before or after:
        plan.differ("users", who, None if account is None else before, after)


def plan_narrow(plan: Plan, who: str, target: str, privileges: set[str]) -> None:
    """Replace ALL by single privileges."""
    names = ", ".join(sorted(privileges))
    plan.add(f"revoke {ALL} on {target} from {who}", f"REVOKE {ALL} ON {target} FROM {who}")
    plan.add(f"grant {names} on {target} to {who}", f"GRANT {names} ON {target} TO {who}")


def plan_revoke(plan: Plan, who: str, target: str, current: set[str], wanted: set[str]) -> None:
    if target.startswith("role "):
        plan.add(f"revoke {target} from {who}", f"REVOKE {target.removeprefix('role ')} FROM {who}")
        return
    extra = current - wanted
    if GRANT_OPTION in extra:
        plan.add(f"revoke {GRANT_OPTION} on {target} from {who}", f"REVOKE {GRANT_OPTION} ON {target} FROM {who}")
    extra -= {GRANT_OPTION}
    if not extra or ALL in wanted or (ALL in extra and wanted):
        return
    names = ", ".join(sorted(extra)) if wanted else ALL
    plan.add(f"revoke {names} on {target} from {who}", f"REVOKE {names} ON {target} FROM {who}")


def plan_removals(plan: Plan, state: State, params: dict[str, Any]) -> None:
    listed = {(user["name"], user["host"]) for user in params["users"]}
    names = {name for name, host in listed}
    for name, host in sorted(state.accounts):
        insecure = not name or (name == "root" and host not in LOCAL_HOSTS)
        stale = name in names and (name, host) not in listed
        if (params["remove_insecure_users"] and insecure) or (params["remove_other_hosts"] and stale):
            who = grantee(name, host)
            plan.add(f"drop user {who}", f"DROP USER {who}")
            plan.differ("users", who, "present", "absent")


def make_plan(state: State, params: dict[str, Any]) -> Plan:
    """What to do to bring the server from its state to the parameters."""
    plan = Plan()
    plan_databases(plan, state, params["databases"])
    for user in params["users"]:
        plan_user(plan, state, user)
    plan_removals(plan, state, params)
    return plan


def problems(params: dict[str, Any]) -> list[str]:
    """What is wrong with the parameters whatever the server has."""
    users = [f"user {grantee(user['name'], user['host'])}" for user in params["users"]]
    names = [*users, *(f"database {database['name']}" for database in params["databases"])]
    found = [f"{name} is listed {names.count(name)} times" for name in dict.fromkeys(names) if names.count(name) > 1]
    empty = [user for user, entry in zip(users, params["users"], strict=True) if not entry["password"]]
    return found + [f"the password of {user} is empty" for user in empty]


def finish(module: AnsibleModule, plan: Plan) -> NoReturn:
    """End the module with what was done, or would be."""
    changes = [text for text, statement in plan.steps]
    diff = {"before": plan.before, "after": plan.after} if module._diff else {}
    module.exit_json(changed=bool(changes), changes=changes, diff=diff)
    raise AssertionError("exit_json() ends the module")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
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
                    "password": {"type": "str", "required": True, "no_log": True},
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
        },
        supports_check_mode=True,
    )
    wrong = problems(module.params)
    if wrong:
        module.fail_json(msg="The parameters contradict themselves: " + "; ".join(wrong) + ".")
    if module.check_mode and (IMPORT_ERROR or not mariadb_is_deployed()):
        finish(module, make_plan(State(), module.params))
    require_pymysql(module)
    import pymysql

    wait_for_earlier_call(module, "mariadb_databases")
    socket, login = module.params["login_unix_socket"], module.params["login_user"]
    doing = f"log in over {socket} as {login}"
    try:
        connection = connect_socket(socket, login)
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION sql_mode = ''")
        doing = "read databases, users and grants"
        plan = make_plan(read_state(connection), module.params)
        if not module.check_mode and plan.steps:
            for text, statement in plan.steps:
                doing = text
                with connection.cursor() as cursor:
                    cursor.execute(statement)
            doing = "read the result back"
            rest = [text for text, statement in make_plan(read_state(connection), module.params).steps]
            if rest:
                module.fail_json(msg=f"MariaDB accepted every statement, yet these are needed again: {'; '.join(rest)}")
    except pymysql.MySQLError as error:
        if module.check_mode:
            not_looked_at(module, "MariaDB", error, changes=[])
        module.fail_json(
            msg=f"Cannot {doing}: {error}. Check that MariaDB runs and that {login}@localhost may do this.\n"
            + unit_log("mariadb")
        )
    finish(module, plan)


if __name__ == "__main__":
    main()
