# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The database schema of a service: what the parameters say about it, and what its database holds."""

from __future__ import annotations

import importlib.util
import os
import re
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ansible.module_utils.kilonova.config.urls import DatabaseUrl, parse_database_url
from ansible.module_utils.kilonova.database.alembic_scripts import Revision, pending
from ansible.module_utils.kilonova.database.mariadb import (
    NO_SUCH_TABLE,
    connect_to_read,
    connect_url,
    error_code,
    identifier,
    rows,
)

if TYPE_CHECKING:
    from pymysql.connections import Connection

STATE_DIRECTORY = "/var/lib/kilonova"
VERSION_TABLE = "alembic_version"
# The name is part of file names.
_NAME = re.compile(r"\w[\w.-]*")


@dataclass
class Schema:
    """One schema. The fields down to ``after_commands`` are options of openstack_schemas, the others are its state."""

    name: str
    connection: str = field(repr=False)
    url: DatabaseUrl
    package: str
    scripts: str
    section: str
    user: str
    command: list[str]
    seeded: list[str] = field(default_factory=list)
    after_commands: list[list[str]] = field(default_factory=list)
    revisions: dict[str, Revision] = field(default_factory=dict)
    before: list[str] | None = None
    after: list[str] | None = None
    pending: int = 0
    commands: list[str] = field(default_factory=list)
    seconds: float = 0.0
    started_over: bool = False
    error: str = ""

    def directory(self) -> str | None:
        """Return the directory of the migration scripts; None if the package is not installed."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            return None
        return os.path.join(next(iter(spec.submodule_search_locations)), self.scripts)

    @property
    def begun_file(self) -> str:
        """The file that exists from the start of an upgrade until its ``after_commands`` have succeeded."""
        return os.path.join(STATE_DIRECTORY, f"schema-{self.name}.begun")

    @property
    def unfinished(self) -> bool:
        """Whether an earlier call did not get to the end of ``after_commands``."""
        return bool(self.after_commands) and os.path.exists(self.begun_file)

    def result(self) -> dict[str, Any]:
        """Return what the module returns about the schema."""
        return {name: getattr(self, name) for name in ("before", "after", "pending", "seconds", "started_over")}


def parse_schemas(entries: list[dict[str, Any]]) -> list[Schema]:
    """Return the schemas of the parameters. Raises ValueError."""
    schemas = [parse_schema(entry) for entry in entries]
    names = [schema.name for schema in schemas]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(f"listed more than once: {', '.join(double)}")
    return schemas


def parse_schema(entry: dict[str, Any]) -> Schema:
    """Return one schema of the parameters. Raises ValueError."""
    name = entry["name"]
    if not _NAME.fullmatch(name):
        raise ValueError(f"the name '{name}' may contain letters, digits, '_', '-' and '.' only")
    try:
        url = parse_database_url(entry["connection"])
    except ValueError as error:
        raise ValueError(f"the connection of the schema {name} cannot be used: {error}") from error
    commands = [[str(word) for word in command] for command in [entry["command"], *entry["after"]]]
    for command in commands:
        if "{config}" not in command:
            text = " ".join(command)
            raise ValueError(
                f"the command '{text}' of the schema {name} lacks {{config}}, without which it would not "
                "use the connection"
            )
    return Schema(
        name,
        entry["connection"],
        url,
        entry["package"],
        entry["scripts"],
        entry["section"],
        entry["user"],
        commands[0],
        entry["seeded"],
        commands[1:],
    )


def words(command: list[str]) -> str:
    """Return a command for messages."""
    return " ".join(word for word in command if word != "{config}")


def current_revisions(connection: Connection) -> list[str]:
    """Return the recorded revisions, sorted; none before the first upgrade. Raises pymysql.MySQLError."""
    import pymysql

    try:
        return sorted(row["version_num"] for row in rows(connection, f"SELECT version_num FROM {VERSION_TABLE}"))
    except pymysql.MySQLError as error:
        if error_code(error) == NO_SUCH_TABLE:
            return []
        raise


def read_schema(schema: Schema, dry_run: bool = False) -> None:
    """Read the recorded revisions and count the pending ones. Raises pymysql.MySQLError."""
    with closing(connect_to_read(schema.url) if dry_run else connect_url(schema.url)) as connection:
        schema.before = schema.after = current_revisions(connection)
    schema.pending = len(pending(schema.revisions, schema.before))


def tables_of(connection: Connection, database: str) -> list[str]:
    """Return the tables of a database, sorted. Raises pymysql.MySQLError."""
    query = "SELECT TABLE_NAME AS name, TABLE_TYPE AS type FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s"
    return sorted(row["name"] for row in rows(connection, query, (database,)) if row["type"] == "BASE TABLE")


def drop_when_empty(schema: Schema) -> bool:
    """Drop all tables if only migrations have written rows; return whether they were dropped.

    Raises pymysql.MySQLError.
    """
    with closing(connect_url(schema.url)) as connection:
        tables = tables_of(connection, schema.url.database)
        for table in set(tables) - {VERSION_TABLE, *schema.seeded}:
            if rows(connection, f"SELECT 1 FROM {identifier(table)} LIMIT 1"):
                return False
        with connection.cursor() as cursor:
            cursor.execute("SET foreign_key_checks = 0")
            for table in tables:
                cursor.execute(f"DROP TABLE {identifier(table)}")
        return True
