# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Plan the statements that converge MariaDB's databases, users and grants: pure functions of state and parameters."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.kilonova.database.mariadb import identifier, literal

ALL = "ALL PRIVILEGES"
GRANT_OPTION = "GRANT OPTION"
PLUGIN = "mysql_native_password"
# In place of hashes: the system user of the same name logs in over the socket, and nobody else.
SOCKET_PLUGIN = "unix_socket"
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
MASK = "***"


@dataclass
class Account:
    """A user account. ``grants`` maps targets (``*.*``, ``db.*``, ...) to the privileges on them."""

    password_hashes: frozenset[str] = frozenset()
    grants: dict[str, set[str]] = field(default_factory=dict)


@dataclass
class State:
    """The server's databases, as name to (character set, collation), and accounts, by (name, host)."""

    databases: dict[str, tuple[str, str]] = field(default_factory=dict)
    accounts: dict[tuple[str, str], Account] = field(default_factory=dict)


@dataclass
class Plan:
    """Steps as (description, statement), and what they change, for Ansible's diff."""

    steps: list[tuple[str, str]] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)

    def add(self, text: str, statement: str) -> None:
        """Add a step."""
        self.steps.append((text, statement))

    def differ(self, kind: str, name: str, before: Any, after: Any) -> None:
        """Add a difference."""
        for side, value in ((self.before, before), (self.after, after)):
            if value is not None:
                side.setdefault(kind, {})[name] = value


def password_hash(password: str) -> str:
    """Hash a password as https://mariadb.com/kb/en/authentication-plugin-mysql_native_password/ does."""
    return "*" + hashlib.sha1(hashlib.sha1(password.encode()).digest()).hexdigest().upper()


def stored_hashes(priv: dict[str, Any]) -> frozenset[str]:
    """Return the hashes in a row of mysql.global_priv; none for locked accounts and those with another way to log in.

    An account with several ways to log in has them in a list, in which an empty entry stands for what is beside it.
    The list stays, with this entry alone, when the account has one way again.
    """
    ways = [way or priv for way in priv.get("auth_or") or [{}]]
    if not priv.get("account_locked") and [way.get("plugin") for way in ways] == [SOCKET_PLUGIN]:
        return frozenset({SOCKET_PLUGIN})
    if priv.get("account_locked") or any(way.get("plugin") != PLUGIN for way in ways):
        return frozenset()
    hashes = frozenset(str(way.get("authentication_string", "")) for way in ways)
    return hashes if all(hashes) else frozenset()


def grantee(name: str, host: str) -> str:
    """Return an account as SQL and information_schema write it."""
    return f"{literal(name)}@{literal(host)}"


def pattern(database: str) -> str:
    """Escape a database name in a grant, where ``_`` and ``%`` are wildcards."""
    return database.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%")


def privilege_set(names: list[str]) -> set[str]:
    """Return privileges in the form in which MariaDB lists them."""
    wanted = {" ".join(name.upper().split()) for name in names}
    return {ALL} if wanted & {"ALL", ALL} else wanted


def database_target(name_pattern: str) -> str:
    """Return the target of a grant on a database."""
    return f"{identifier(name_pattern)}.*"


def plan_databases(plan: Plan, state: State, databases: list[dict[str, Any]]) -> None:
    """Create databases and correct their character sets."""
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
    """Return the privileges that a user must have, by target."""
    grants: dict[str, set[str]] = {}
    for entry in user["privileges"]:
        target = database_target(pattern(entry["database"]))
        grants[target] = privilege_set([*entry["privileges"], *grants.get(target, set())])
    return grants


def plan_user(plan: Plan, state: State, user: dict[str, Any]) -> None:
    """Create or correct one user and its grants."""
    key = (user["name"], user["host"])
    who = grantee(*key)
    wanted = wanted_grants(user)
    account = state.accounts.get(key)
    passwords = [password for password in (user["password"], user.get("other_password")) if password]
    hashes = [password_hash(password) for password in dict.fromkeys(passwords)]
    by_password = "IDENTIFIED VIA " + " OR ".join(f"{PLUGIN} USING {literal(one)}" for one in hashes)
    if user.get("unix_socket"):
        hashes, by_password = [SOCKET_PLUGIN], f"IDENTIFIED VIA {SOCKET_PLUGIN}"
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    if account is None:
        plan.add(f"create user {who}", f"CREATE USER {who} {by_password}")
        after["password"] = MASK
    elif account.password_hashes != frozenset(hashes):
        what = "password" if len(hashes) == 1 else "passwords"
        plan.add(f"set the {what} of {who}", f"ALTER USER {who} {by_password} ACCOUNT UNLOCK")
        before["password"], after["password"] = f"{MASK} (old)", f"{MASK} (new)"
    current = account.grants if account else {}
    # Grant before revoking, so that the service never lacks a privilege in between.
    for target, privileges in wanted.items():
        missing = privileges - current.get(target, set())
        # ALL includes every single privilege.
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
    """Revoke privileges that are not listed."""
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
    """Drop insecure accounts and other hosts of listed users."""
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
    """Return the steps from the server's state to the parameters."""
    plan = Plan()
    plan_databases(plan, state, params["databases"])
    for user in params["users"]:
        plan_user(plan, state, user)
    plan_removals(plan, state, params)
    return plan


def problems(params: dict[str, Any]) -> list[str]:
    """Return contradictions in the parameters."""
    users = [f"user {grantee(user['name'], user['host'])}" for user in params["users"]]
    names = [*users, *(f"database {database['name']}" for database in params["databases"])]
    found = [f"{name} is listed {names.count(name)} times" for name in dict.fromkeys(names) if names.count(name) > 1]
    for user, entry in zip(users, params["users"], strict=True):
        if bool(entry["password"]) == bool(entry.get("unix_socket")):
            found.append(f"{user} needs either a password or unix_socket")
    return found
