# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Converge Nova's cell mappings and map compute hosts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.cells import (
    CELL0,
    CELL0_TRANSPORT,
    CELL0_UUID,
    AmbiguousCell,
    Cell,
    CellChange,
    Host,
    diff_of,
    find_cell,
    missing_message,
    plan_cells,
    read_cells,
    read_hosts,
    read_mapped_hosts,
    tables_missing,
    unmapped,
    waiting_for,
)
from ansible.module_utils.kilonova.config.urls import masked_url, parse_database_url
from ansible.module_utils.kilonova.database.mariadb import (
    connect_to_read,
    connect_url,
    pymysql_is_missing,
    require_pymysql,
)
from ansible.module_utils.kilonova.database.service_tool import ServiceTool, ToolError, last_lines, secrets_of
from ansible.module_utils.kilonova.system.dry_run import mariadb_is_deployed, not_looked_at, unreachable

if TYPE_CHECKING:
    from pymysql.connections import Connection

_URL: dict[str, Any] = {"type": "str", "required": True, "no_log": True}
ARGUMENT_SPEC: dict[str, Any] = {
    "api_connection": _URL,
    "cell0_connection": _URL,
    "cells": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"name": {"type": "str", "required": True}, "connection": _URL, "transport_url": _URL},
    },
    "expected_hosts": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 180},
}
POLL_SECONDS = 0.5
TOOL_SECONDS = 300
NOVA_MANAGE = ["nova-manage", "{config}", "cell_v2"]


class NovaManage:
    """nova-manage with a private configuration."""

    def __init__(self, api_connection: str) -> None:
        self.api_connection = api_connection
        # Masked, so that calls with an old and a new password share a lock.
        self.key = masked_url(api_connection)

    def __call__(self, cell: Cell, *arguments: str, unless: Callable[[], object] | None = None) -> str:
        """Run a cell_v2 command with a cell's URLs in the configuration. Raises ToolError.

        ``unless`` is called with the lock held: an interrupted run's nova-manage may have done the work meanwhile.
        """
        tool = ServiceTool("nova", f"nova-{cell.name}", self.key, TOOL_SECONDS)
        # nova-manage may store the cell's URL as the configuration has it, so that one cannot refer to a login file.
        databases = {"api_database": (self.api_connection, "file"), "database": (cell.connection, "url")}
        settings = {"DEFAULT": {"use_stderr": "true"}}
        if cell.uuid != CELL0_UUID:
            settings["DEFAULT"]["transport_url"] = cell.transport_url
        with tool.locked():
            if unless and unless():
                return ""
            return tool.run([*NOVA_MANAGE, *arguments], settings, databases)

    def apply(self, change: CellChange, api: Connection) -> None:
        """Create or correct one mapping. Raises ToolError."""
        cell, mapping = change.cell, change.after
        # A URL with a password is read from the configuration instead.
        urls = ["--database_connection", mapping.connection] if mapping.connection != cell.connection else []
        if change.before is None and cell.uuid == CELL0_UUID:
            self(cell, "map_cell0", *urls)
            if urls:
                return
        if mapping.transport_url != cell.transport_url or cell.uuid == CELL0_UUID:
            urls += ["--transport-url", mapping.transport_url]
        if change.before is None:
            arguments = ["create_cell", "--name", cell.name, *urls]
            self(cell, *arguments, unless=lambda: find_cell(read_cells(api), cell, mapping))
        else:
            self(cell, "update_cell", "--cell_uuid", mapping.uuid, "--name", cell.name, *urls)


class Databases:
    """Connections to the API database and to the databases of cells with compute hosts."""

    def __init__(self, api: Connection, cells: dict[str, Connection]) -> None:
        self.api = api
        self.cells = cells

    def hosts(self) -> dict[str, Host]:
        """Return the registered compute hosts of all cells, by name."""
        return {name: host for cell, link in self.cells.items() for name, host in read_hosts(cell, link).items()}

    def clear_stale_marks(self, names: list[str], hosts: dict[str, Host]) -> None:
        """Mark compute nodes without a mapping as not mapped, because discover_hosts skips nodes marked as mapped."""
        for name in names:
            if hosts[name].node_mapped:
                with self.cells[hosts[name].cell].cursor() as cursor:
                    cursor.execute("UPDATE compute_nodes SET mapped = 0 WHERE host = %s AND deleted = 0", (name,))


@contextlib.contextmanager
def open_databases(api_connection: str, cells: list[Cell], dry_run: bool) -> Iterator[Databases]:
    """Open the databases. Raises pymysql.MySQLError."""
    connect = connect_to_read if dry_run else connect_url
    with contextlib.ExitStack() as stack:

        def connection(url: str) -> Connection:
            return stack.enter_context(contextlib.closing(connect(parse_database_url(url))))

        api = connection(api_connection)
        yield Databases(api, {cell.name: connection(cell.connection) for cell in cells if cell.uuid != CELL0_UUID})


def local_cell(cells: list[Cell]) -> Cell:
    """Return the cell whose URLs nova.conf has: the first one after cell0."""
    return cells[min(1, len(cells) - 1)]


def apply_change(manage: NovaManage, change: CellChange, api_connection: str) -> None:
    """Make one change, with a connection of this thread. Raises ToolError."""
    with contextlib.closing(connect_url(parse_database_url(api_connection))) as api:
        manage.apply(change, api)


def wanted_cells(params: dict[str, Any]) -> list[Cell]:
    """Return the cells of the parameters. Raises ValueError."""
    cells = [Cell(CELL0, params["cell0_connection"], CELL0_TRANSPORT, CELL0_UUID)]
    cells += [Cell(entry["name"], entry["connection"], entry["transport_url"]) for entry in params["cells"]]
    names = [cell.name for cell in cells]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(f"listed more than once: {', '.join(double)}")
    urls = {"the API database": params["api_connection"], **{cell.name: cell.connection for cell in cells}}
    for label, url in urls.items():
        try:
            parse_database_url(url)
        except ValueError as error:
            raise ValueError(f"the connection of {label} cannot be used: {error}") from error
    return cells


def wait_for_hosts(
    databases: Databases, expected: list[str], timeout: float
) -> tuple[set[str], dict[str, Host], float]:
    """Poll until each expected host is mapped or can be mapped, or the timeout is over."""
    started = time.monotonic()
    while True:
        mapped = read_mapped_hosts(databases.api)
        hosts = databases.hosts()
        waited = time.monotonic() - started
        if not waiting_for(expected, mapped, hosts) or waited >= timeout:
            return mapped, hosts, waited
        time.sleep(POLL_SECONDS)


def result_of(
    changes: list[CellChange], todo: list[str], mapped: set[str], missing: list[str], expected: list[str]
) -> dict[str, Any]:
    """Return the part of the result that does not depend on check mode."""
    return {
        "changed": bool(changes or todo),
        "mappings": [change.text for change in changes],
        "hosts": todo,
        "mapped": sorted(mapped),
        "unmapped": [name for name in dict.fromkeys(expected) if name not in mapped],
        "missing": missing,
    }


def look(module: AnsibleModule, cells: list[Cell]) -> dict[str, Any]:
    """Return the result of a dry run. Raises pymysql.MySQLError."""
    expected = module.params["expected_hosts"]
    changes: list[CellChange] = []
    needs_you = []
    with open_databases(module.params["api_connection"], cells, dry_run=True) as databases:
        existing = read_cells(databases.api)
        mapped, hosts = read_mapped_hosts(databases.api), databases.hosts()
    for cell in cells:
        try:
            changes += plan_cells(existing, [cell], local_cell(cells))
        except AmbiguousCell as error:
            needs_you.append(str(error))
    missing = waiting_for(expected, mapped, hosts)
    registered = unmapped(mapped, hosts)
    todo = sorted({*registered, *missing})
    result = result_of(changes, todo, mapped, missing, expected)
    result |= {"mapped": sorted(mapped.union(registered)), "waited": 0.0}
    if needs_you:
        result["needs_you"] = needs_you
    if module._diff:
        result["diff"] = diff_of(changes, todo)
    return result


def converge(module: AnsibleModule, cells: list[Cell]) -> dict[str, Any]:
    """Map cells and hosts, and return the result. Raises ToolError, AmbiguousCell and pymysql.MySQLError."""
    params = module.params
    manage = NovaManage(params["api_connection"])
    with open_databases(params["api_connection"], cells, dry_run=False) as databases:
        changes = plan_cells(read_cells(databases.api), cells, local_cell(cells))
        # nova-manage takes seconds of one CPU to start.
        with ThreadPoolExecutor() as pool:
            for call in [pool.submit(apply_change, manage, change, params["api_connection"]) for change in changes]:
                call.result()
        rest = plan_cells(read_cells(databases.api), cells, local_cell(cells)) if changes else []
        if rest:
            again = "; ".join(change.text for change in rest)
            raise ToolError(f"nova-manage succeeded, yet is needed again to {again}")
        mapped, hosts, waited = wait_for_hosts(databases, params["expected_hosts"], params["timeout"])
        missing = waiting_for(params["expected_hosts"], mapped, hosts)
        todo = unmapped(mapped, hosts)
        if todo:
            databases.clear_stale_marks(todo, hosts)
            output = manage(cells[-1], "discover_hosts", "--verbose")
            left = sorted(set(todo) - read_mapped_hosts(databases.api))
            if left:
                raise ToolError(f"nova-manage succeeded, yet did not map {', '.join(left)}", output)
    result = result_of(changes, todo, mapped.union(todo), missing, params["expected_hosts"])
    result["waited"] = round(waited, 2)
    if module._diff:
        result["diff"] = diff_of(changes, todo)
    if missing:
        module.fail_json(msg=missing_message(missing, hosts, mapped, params["timeout"]), **result)
    return result


def all_to_do(module: AnsibleModule) -> NoReturn:
    """End a dry run on a host without Nova's databases."""
    names = [CELL0, *(entry["name"] for entry in module.params["cells"])]
    expected = module.params["expected_hosts"]
    result = result_of([], expected, set(), expected, expected)
    module.exit_json(**result | {"changed": True, "mappings": [f"map {name}" for name in names], "waited": 0.0})
    raise AssertionError("exit_json() ends the module")


def run(module: AnsibleModule) -> None:
    """Map cells and compute hosts."""
    params = module.params
    if module.check_mode and pymysql_is_missing():
        all_to_do(module)
    require_pymysql(module)
    import pymysql

    urls = [params["api_connection"], params["cell0_connection"]]
    urls += [entry[name] for entry in params["cells"] for name in ("connection", "transport_url")]
    secrets = {secret for entry in urls for secret in secrets_of(entry)}
    module.no_log_values.update(secrets)
    try:
        cells = wanted_cells(params)
        result = look(module, cells) if module.check_mode else converge(module, cells)
    except ValueError as error:
        module.fail_json(msg=f"The cells cannot be converged: {error}.")
    except ToolError as error:
        module.fail_json(msg=f"The cells could not be converged: {error}\n{last_lines(error.output, secrets)}".rstrip())
    except pymysql.MySQLError as error:
        hint = "Check the URL and that MariaDB runs."
        if tables_missing(error):
            hint = "Upgrade the schemas first (openstack_schemas)."
        if module.check_mode and unreachable(error) and mariadb_is_deployed():
            nothing = result_of([], [], set(), [], params["expected_hosts"])
            not_looked_at(module, "The cells", error, **nothing, waited=0.0)
        if module.check_mode:
            all_to_do(module)
        module.fail_json(msg=f"Nova's databases cannot be read: {error}. {hint}")
    module.exit_json(**result)
