# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Connections to MariaDB over PyMySQL, and SQL quoting, for the modules that read or write databases."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.kilonova.config.urls import DatabaseUrl

if TYPE_CHECKING:
    from pymysql.connections import Connection

try:
    import pymysql
    from pymysql.cursors import DictCursor

    IMPORT_ERROR: str | None = None
except ImportError:
    IMPORT_ERROR = traceback.format_exc()

CONNECT_SECONDS = 10
UNKNOWN_DATABASE = 1049
REFUSED = (1044, 1045, 1698)
ROOT_SOCKET = "/run/mysqld/mysqld.sock"
NO_SUCH_TABLE = 1146
TLS_OPTIONS = ("ssl_ca", "ssl_cert", "ssl_key")


def require_pymysql(module: AnsibleModule) -> None:
    """Fail with Ansible's message where PyMySQL is missing."""
    if IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("PyMySQL"), exception=IMPORT_ERROR)


def connect_socket(socket: str, user: str, database: str | None = None) -> Connection:
    """Log in over the unix socket. Raises pymysql.MySQLError."""
    return pymysql.connect(
        unix_socket=socket,
        user=user,
        database=database,
        charset="utf8mb4",
        autocommit=True,
        connect_timeout=CONNECT_SECONDS,
    )


def connect_url(url: DatabaseUrl) -> Connection:
    """Log in as an SQLAlchemy URL says, TLS options and unix socket included. Raises pymysql.MySQLError."""
    options: dict[str, Any] = {name: url.option(name) for name in TLS_OPTIONS if url.option(name)}
    if url.option("unix_socket"):
        options["unix_socket"] = url.option("unix_socket")
    return pymysql.connect(
        host=url.host,
        port=url.port,
        user=url.user,
        password=url.password,
        database=url.database,
        charset="utf8mb4",
        autocommit=True,
        connect_timeout=CONNECT_SECONDS,
        **options,
    )


def connect_to_read(url: DatabaseUrl) -> Connection:
    """Log in as the URL says, or as root where that account is refused. Raises pymysql.MySQLError.

    For dry runs: the account may be what a run would create or correct, and what it would read there is known to root.
    """
    try:
        return connect_url(url)
    except pymysql.MySQLError as error:
        if error_code(error) not in REFUSED:
            raise
        return connect_socket(ROOT_SOCKET, "root", url.database)


def rows(connection: Connection, query: str, arguments: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
    """The rows of a query as dictionaries. Raises pymysql.MySQLError."""
    with connection.cursor(DictCursor) as cursor:
        cursor.execute(query, arguments or None)
        return list(cursor.fetchall())


def error_code(error: Exception) -> int:
    """MariaDB's error number, 0 where there is none."""
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def identifier(name: str) -> str:
    """A name quoted as an SQL identifier."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """A text quoted as an SQL string, for sessions without NO_BACKSLASH_ESCAPES."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
