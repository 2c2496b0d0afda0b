# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Make and parse URLs with credentials, and escape them for oslo.config files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

_PASSWORD = re.compile(r"(//|,)([^:@/,]*):[^@/,]*@")
MYSQL_PORT = 3306
RABBIT_PORT = 5672


@dataclass(frozen=True)
class DatabaseUrl:
    """The parts of an SQLAlchemy URL. The password stays out of repr()."""

    driver: str
    user: str
    password: str = field(repr=False)
    host: str
    port: int
    database: str
    query: tuple[tuple[str, str], ...] = ()

    def option(self, name: str) -> str | None:
        """Return the value of a query argument, or None."""
        return dict(self.query).get(name)

    def __str__(self) -> str:
        """Return the URL without the password, for messages and diffs."""
        query = "?" + "&".join(f"{key}={value}" for key, value in self.query) if self.query else ""
        return f"{self.driver}://{self.user}:***@{self.host}:{self.port}/{self.database}{query}"


def database_url(user: str, password: str, host: str, database: str, port: int = MYSQL_PORT, **query: str) -> str:
    """Return an SQLAlchemy URL for MariaDB over PyMySQL. All parts are quoted, so a password may contain anything."""
    return _url("mysql+pymysql", user, password, host, port, database, query)


def transport_url(
    user: str, password: str, hosts: str | list[str], virtual_host: str = "", port: int = RABBIT_PORT, **query: str
) -> str:
    """Return an oslo.messaging URL for one or several RabbitMQ hosts. An empty virtual host means ``/``."""
    names = [hosts] if isinstance(hosts, str) else hosts
    if not names:
        raise ValueError("transport_url needs at least one host")
    login = f"{_quoted(user)}:{_quoted(password)}"
    members = ",".join(f"{login}@{_host(name)}:{port}" for name in names)
    return f"rabbit://{members}/{_quoted(virtual_host)}{_query(query)}"


def messaging_password(password: str) -> str:
    """Return the password of a RabbitMQ account, which is ``%2F`` for each slash of a secret.

    oslo.messaging passes a slash to kombu unquoted, where it ends the host name (impl_rabbit.py, parse.quote without
    safe='').
    """
    return password.replace("/", "%2F")


def messaging_url(account: Mapping[str, Any], hosts: str | list[str], port: int) -> str:
    """Return the oslo.messaging URL of an account: a map with ``user``, ``password`` and ``virtual_host``."""
    password = messaging_password(account["password"])
    return transport_url(account["user"], password, hosts, account["virtual_host"], port)


def parse_database_url(url: str) -> DatabaseUrl:
    """Parse an SQLAlchemy URL. Raises ValueError, without the URL in its text, if it is not usable."""
    parts = urlsplit(url)
    if not parts.scheme.startswith(("mysql", "mariadb")):
        raise ValueError(f"the scheme is '{parts.scheme}', not mysql+pymysql")
    if "/" in parts.path[1:] or not parts.path[1:]:
        raise ValueError("it names no database")
    if parts.fragment:
        raise ValueError("it contains a '#' that is not quoted as %23")
    try:
        port = parts.port or MYSQL_PORT
    except ValueError as error:
        raise ValueError("its port is not a number; is a '/', ':' or '@' in the password not quoted?") from error
    return DatabaseUrl(
        driver=parts.scheme,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        host=parts.hostname or "localhost",
        port=port,
        database=unquote(parts.path[1:]),
        query=tuple(parse_qsl(parts.query)),
    )


def masked_url(url: str) -> str:
    """Return a URL, of a database or of several brokers, with its passwords masked."""
    return _PASSWORD.sub(r"\1\2:***@", url)


def oslo_escape(value: object) -> str:
    """Escape a value for an oslo.config file, so that it is read back unchanged. Raises ValueError for a line break.

    oslo.config substitutes ``$name``, and strips blanks and one pair of equal quotes around the value
    (oslo_config/iniparser.py and ConfigOpts._substitute).
    """
    text = str(value)
    if "\n" in text or "\r" in text:
        raise ValueError("a value with a line break cannot be written to an oslo.config file")
    # Not `$$`: oslo.config turns `\$` into `$$` first, and would drop a backslash before `$$`.
    text = text.replace("$", "\\$")
    quoted = text[:1] in ("'", '"') and text[0] == text[-1]
    return f'"{text}"' if quoted or text != text.strip() else text


def _url(scheme: str, user: str, password: str, host: str, port: int, path: str, query: dict[str, str]) -> str:
    return f"{scheme}://{_quoted(user)}:{_quoted(password)}@{_host(host)}:{port}/{_quoted(path)}{_query(query)}"


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _host(name: str) -> str:
    return f"[{name}]" if ":" in name and not name.startswith("[") else name


def _query(arguments: dict[str, str]) -> str:
    pairs = [f"{_quoted(key)}={_quoted(str(value))}" for key, value in arguments.items()]
    return "?" + "&".join(pairs) if pairs else ""
