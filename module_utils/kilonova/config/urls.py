# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""URLs with credentials, and their form inside an oslo.config file.

Not named urls: ``ansible.module_utils.urls`` belongs to Ansible, and a file of that name would replace it in
every module, ``get_url`` and ``uri`` included.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

_PASSWORD = re.compile(r"(//|,)([^:@/,]*):[^@/,]*@")
MYSQL_PORT = 3306
RABBIT_PORT = 5672


@dataclass(frozen=True)
class DatabaseUrl:
    """What an SQLAlchemy URL says; the password stays out of repr()."""

    driver: str
    user: str
    password: str = field(repr=False)
    host: str
    port: int
    database: str
    query: tuple[tuple[str, str], ...] = ()

    def option(self, name: str) -> str | None:
        """The value of a query argument, None where it is absent."""
        return dict(self.query).get(name)

    def __str__(self) -> str:
        """The URL without the password, for messages and diffs."""
        query = "?" + "&".join(f"{key}={value}" for key, value in self.query) if self.query else ""
        return f"{self.driver}://{self.user}:***@{self.host}:{self.port}/{self.database}{query}"


def database_url(user: str, password: str, host: str, database: str, port: int = MYSQL_PORT, **query: str) -> str:
    """An SQLAlchemy URL for MariaDB over PyMySQL; every part is quoted, so a password may contain anything."""
    return _url("mysql+pymysql", user, password, host, port, database, query)


def transport_url(
    user: str, password: str, hosts: str | list[str], virtual_host: str = "", port: int = RABBIT_PORT, **query: str
) -> str:
    """An oslo.messaging URL for RabbitMQ, for one host or several. The default virtual host is ``/``, written empty."""
    names = [hosts] if isinstance(hosts, str) else hosts
    if not names:
        raise ValueError("transport_url needs at least one host")
    login = f"{_quoted(user)}:{_quoted(password)}"
    members = ",".join(f"{login}@{_host(name)}:{port}" for name in names)
    return f"rabbit://{members}/{_quoted(virtual_host)}{_query(query)}"


def parse_database_url(url: str) -> DatabaseUrl:
    """Take an SQLAlchemy URL apart. Raises ValueError, without the URL in its text, for one that is not usable."""
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
    """A URL, of a database or of several brokers, with its passwords replaced."""
    return _PASSWORD.sub(r"\1\2:***@", url)


def oslo_escape(value: object) -> str:
    """A value as it is written after ``name = `` in an oslo.config file, so that it is read back unchanged.

    oslo.config substitutes ``$name``, strips blanks around the value and one pair of equal quotes around it
    (oslo_config/iniparser.py and ConfigOpts._substitute). A line break cannot be written at all.
    """
    text = str(value)
    if "\n" in text or "\r" in text:
        raise ValueError("a value with a line break cannot be written to an oslo.config file")
    # `\$` and not `$$`: oslo.config first turns every `\$` into `$$`, so a backslash before `$$` would be lost.
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
