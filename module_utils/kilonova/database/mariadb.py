# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Connect to MariaDB with PyMySQL, and quote SQL."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.kilonova.config.urls import DatabaseUrl

if TYPE_CHECKING:
    from pymysql.connections import Connection

CONNECT_SECONDS = 10
UNKNOWN_DATABASE = 1049
REFUSED = (1044, 1045, 1698)
ROOT_SOCKET = "/run/mysqld/mysqld.sock"
NO_SUCH_TABLE = 1146
TLS_OPTIONS = ("ssl_ca", "ssl_cert", "ssl_key")


def pymysql_is_missing() -> bool:
    """Return whether PyMySQL is not installed."""
    return importlib.util.find_spec("pymysql") is None


def require_pymysql(module: AnsibleModule) -> None:
    """Fail with Ansible's message if PyMySQL is not installed."""
    if pymysql_is_missing():
        module.fail_json(msg=missing_required_lib("PyMySQL"))


def connect_socket(socket: str, user: str, database: str | None = None) -> Connection:
    """Log in over the Unix socket. Raises pymysql.MySQLError."""
    import pymysql

    return pymysql.connect(
        unix_socket=socket,
        user=user,
        database=database,
        charset="utf8mb4",
        autocommit=True,
        connect_timeout=CONNECT_SECONDS,
    )


def connect_url(url: DatabaseUrl) -> Connection:
    """Log in with an SQLAlchemy URL, including its TLS options and Unix socket. Raises pymysql.MySQLError."""
    import pymysql

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
    """Log in with a URL, or as root if MariaDB refuses that account. Raises pymysql.MySQLError.

    For dry runs, in which the account may be one that the run would create or correct.
    """
    import pymysql

    try:
        return connect_url(url)
    except pymysql.MySQLError as error:
        if error_code(error) not in REFUSED:
            raise
        return connect_socket(ROOT_SOCKET, "root", url.database)


def rows(connection: Connection, query: str, arguments: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
    """Return the rows of a query as dictionaries. Raises pymysql.MySQLError."""
    from pymysql.cursors import DictCursor

    with connection.cursor(DictCursor) as cursor:
        cursor.execute(query, arguments or None)
        return list(cursor.fetchall())


def error_code(error: Exception) -> int:
    """Return MariaDB's error number; 0 if there is none."""
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def identifier(name: str) -> str:
    """Quote a name as an SQL identifier."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """Quote a text as an SQL string, for sessions without NO_BACKSLASH_ESCAPES."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
