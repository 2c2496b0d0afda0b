#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Converge Nova's cell mappings and map its compute hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nova_cells
short_description: Converge Nova's cell mappings and map its compute hosts
version_added: "0.1.0"
description:
  - Maps cell0 and the listed cells, and corrects their database connections and transport URLs when these differ.
  - Waits until each expected compute host has registered, and maps it and every other registered host that is not
    mapped. A host without a mapping is never scheduled to (C(not mapped to any cell)), and
    C(nova-manage cell_v2 discover_hosts) says nothing when it finds none.
  - Reads Nova's databases directly, so that a call without a change takes a few milliseconds, and starts
    C(nova-manage), as the system user C(nova) with a private temporary configuration, only to change something.
  - C(map_cell0) removes one layer of quoting from the URL that it stores (C(_map_cell0) in nova/cmd/manage.py), which
    breaks one with a special character in the password. It is given a URL that is right after that, and the mapping is
    read back and corrected if it is not.
  - A compute node that Nova's cell database calls mapped while no mapping exists, as after a restored API
    database, is marked as not mapped, because C(discover_hosts) passes it over otherwise.
options:
  api_connection:
    description: SQLAlchemy URL of the API database (C([api_database]connection)).
    type: str
    required: true
  cell0_connection:
    description: SQLAlchemy URL of the database of cell0.
    type: str
    required: true
  cells:
    description: Cells beside cell0. Cells that are not listed are left alone.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the cell.
        type: str
        required: true
      connection:
        description: SQLAlchemy URL of the cell's database.
        type: str
        required: true
      transport_url:
        description: URL of the cell's message queue.
        type: str
        required: true
  expected_hosts:
    description:
      - Names of the compute hosts that must be mapped, as nova-compute calls them (option C(host), the host name by
        default).
    type: list
    elements: str
    default: []
  timeout:
    description: How long to wait for the expected hosts, in seconds.
    type: int
    default: 180
attributes:
  check_mode:
    support: full
    description:
      - Reports what would change, without waiting. Expected hosts that have not registered yet count as hosts to map.
  diff_mode:
    support: full
    description: Shows what differs, with passwords masked.
notes:
  - Fails when expected hosts do not register in time, naming them with what is known of each; the others are mapped
    first.
  - Fails when the schemas do not exist yet (M(openstack_schemas)), when a cell could be any of several, and when
    nova-manage fails, with the last lines of its output.
  - nova-api, nova-scheduler and nova-conductor read the mappings when they start. Restart them when RV(mappings) is
    not empty.
requirements: [python3-pymysql, nova-common]
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Map the cells and the compute hosts
  nova_cells:
    api_connection: "{{ 'nova' | database_url(nova_database_password, '192.0.2.10', 'nova_api') }}"
    cell0_connection: "{{ 'nova' | database_url(nova_database_password, '192.0.2.10', 'nova_cell0') }}"
    cells:
      - name: cell1
        connection: "{{ 'nova' | database_url(nova_database_password, '192.0.2.10', 'nova') }}"
        transport_url: "{{ 'openstack' | transport_url(rabbitmq_password, '192.0.2.10') }}"
    expected_hosts: [compute1, compute2]
"""

RETURN = r"""
mappings:
  description: What was changed about the cells, or would be in check mode, one line each.
  returned: always
  type: list
  elements: str
  sample: [map cell0, correct the transport URL of cell1]
hosts:
  description: Compute hosts that were mapped, or would be in check mode.
  returned: always
  type: list
  elements: str
mapped:
  description: All compute hosts that are mapped to a cell afterwards, or would be in check mode.
  returned: always
  type: list
  elements: str
missing:
  description: Expected hosts that have not registered.
  returned: always
  type: list
  elements: str
waited:
  description: How long the module waited for hosts, in seconds.
  returned: always
  type: float
not_looked_at:
  description: Why a dry run could not see, though MariaDB is installed. RV(ignore:changed) is then false.
  returned: in check mode, when MariaDB does not answer
  type: str
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.cells import (
    CELL0,
    CELL0_TRANSPORT,
    CELL0_UUID,
    Cell,
    CellChange,
    Host,
    before_map_cell0,
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
from ansible.module_utils.kilonova.database.mariadb import IMPORT_ERROR, connect_to_read, connect_url, require_pymysql
from ansible.module_utils.kilonova.database.service_tool import ServiceTool, ToolError, last_lines, secrets_of
from ansible.module_utils.kilonova.system.dry_run import mariadb_is_deployed, not_looked_at, unreachable

if TYPE_CHECKING:
    from pymysql.connections import Connection

POLL_SECONDS = 0.5
# How long one start of nova-manage may take; it takes seconds.
TOOL_SECONDS = 300
NOVA_MANAGE = ["nova-manage", "{config}", "cell_v2"]


class NovaManage:
    """nova-manage with the configuration that a change needs."""

    def __init__(self, api_connection: str) -> None:
        self.api_connection = api_connection
        # Not the whole URL: a changed password must not make it another piece of work.
        self.key = masked_url(api_connection)

    def __call__(
        self, cell: Cell, *arguments: str, connection: str | None = None, unless: Callable[[], object] | None = None
    ) -> str:
        """Run a cell_v2 command that takes a cell's URLs from the configuration. Raises ToolError.

        ``unless`` is asked when no other call is at work any more: what a killed run began goes on without it.
        """
        tool = ServiceTool("nova", f"nova-{cell.name}", self.key, TOOL_SECONDS)
        # The cell's URL is stored as it is written here; the API database is only logged in to.
        databases = {"api_database": (self.api_connection, "file"), "database": (connection or cell.connection, "url")}
        settings = {"DEFAULT": {"use_stderr": "true"}}
        if cell.uuid != CELL0_UUID:
            settings["DEFAULT"]["transport_url"] = cell.transport_url
        with tool.locked():
            if unless and unless():
                return ""
            return tool.run([*NOVA_MANAGE, *arguments], settings, databases)

    def apply(self, change: CellChange, api: Connection) -> None:
        """Make or correct one mapping. Raises ToolError."""
        cell = change.after
        if change.before is None and cell.uuid == CELL0_UUID:
            self(cell, "map_cell0", connection=before_map_cell0(cell.connection))
            if find_cell(read_cells(api), cell) == cell:
                return
        elif change.before is None:
            self(cell, "create_cell", "--name", cell.name, unless=lambda: find_cell(read_cells(api), cell))
            return
        # cell0's transport is no secret, and no driver is called so, which is why it cannot stand in the configuration.
        transport = ["--transport-url", CELL0_TRANSPORT] if cell.uuid == CELL0_UUID else []
        self(cell, "update_cell", "--cell_uuid", cell.uuid, "--name", cell.name, *transport)


class Databases:
    """Open connections to the API database and the databases of the cells that have compute hosts."""

    def __init__(self, api_connection: str, cells: list[Cell], dry_run: bool = False) -> None:
        connect = connect_to_read if dry_run else connect_url
        self.api = connect(parse_database_url(api_connection))
        self.cells: dict[str, Connection] = {}
        for cell in cells:
            if cell.uuid != CELL0_UUID:
                self.cells[cell.name] = connect(parse_database_url(cell.connection))

    def hosts(self) -> dict[str, Host]:
        return {name: host for cell, link in self.cells.items() for name, host in read_hosts(cell, link).items()}

    def forget_stale_marks(self, names: list[str], hosts: dict[str, Host]) -> None:
        for name in names:
            if hosts[name].node_mapped:
                with self.cells[hosts[name].cell].cursor() as cursor:
                    cursor.execute("UPDATE compute_nodes SET mapped = 0 WHERE host = %s AND deleted = 0", (name,))


def apply_change(manage: NovaManage, change: CellChange, api_connection: str) -> None:
    """Make one change with a connection of its own, as these cannot be shared between threads."""
    api = connect_url(parse_database_url(api_connection))
    try:
        manage.apply(change, api)
    finally:
        api.close()


def wanted_cells(params: dict[str, Any]) -> list[Cell]:
    """The cells of the parameters. Raises ValueError."""
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
    """Poll until every expected host is mapped or ready to be, or the time is over."""
    started = time.monotonic()
    while True:
        mapped = read_mapped_hosts(databases.api)
        hosts = databases.hosts()
        waited = time.monotonic() - started
        if not waiting_for(expected, mapped, hosts) or waited >= timeout:
            return mapped, hosts, waited
        time.sleep(POLL_SECONDS)


def converge(module: AnsibleModule, cells: list[Cell], manage: NovaManage) -> dict[str, Any]:
    """Do the work and return the module's result. Raises ToolError, ValueError and pymysql.MySQLError."""
    params, check = module.params, module.check_mode
    databases = Databases(params["api_connection"], cells, dry_run=check)
    changes = plan_cells(read_cells(databases.api), cells)
    if not check:
        # Each start of nova-manage takes seconds of one CPU, so cell0 and cell1 are mapped at the same time.
        with ThreadPoolExecutor() as pool:
            for call in [pool.submit(apply_change, manage, change, params["api_connection"]) for change in changes]:
                call.result()
        rest = plan_cells(read_cells(databases.api), cells) if changes else []
        if rest:
            again = "; ".join(change.text for change in rest)
            raise ToolError(f"nova-manage succeeded, yet is needed again to {again}")
    expected = params["expected_hosts"]
    mapped, hosts, waited = wait_for_hosts(databases, expected, 0 if check else params["timeout"])
    missing = waiting_for(expected, mapped, hosts)
    todo = unmapped(mapped, hosts)
    if todo and not check:
        databases.forget_stale_marks(todo, hosts)
        output = manage(cells[-1], "discover_hosts", "--verbose")
        left = sorted(set(todo) - read_mapped_hosts(databases.api))
        if left:
            raise ToolError(f"nova-manage succeeded, yet did not map {', '.join(left)}", output)
    mapped_now = sorted({*todo, *missing}) if check else todo
    result: dict[str, Any] = {
        "changed": bool(changes or mapped_now),
        "mappings": [change.text for change in changes],
        "hosts": mapped_now,
        "mapped": sorted(mapped.union(todo)),
        "missing": missing,
        "waited": round(waited, 2),
    }
    if module._diff:
        result["diff"] = diff_of(changes, mapped_now)
    if missing and not check:
        module.fail_json(msg=missing_message(missing, hosts, mapped, params["timeout"]), **result)
    return result


def all_to_do(module: AnsibleModule) -> NoReturn:
    """End a dry run on a host where Nova's databases are still to be made."""
    names = [CELL0, *(entry["name"] for entry in module.params["cells"])]
    module.exit_json(
        changed=True,
        mappings=[f"map {name}" for name in names],
        hosts=module.params["expected_hosts"],
        mapped=[],
        missing=module.params["expected_hosts"],
        waited=0.0,
    )
    raise AssertionError("exit_json() ends the module")


def main() -> None:
    url = {"type": "str", "required": True, "no_log": True}
    module = AnsibleModule(
        argument_spec={
            "api_connection": url,
            "cell0_connection": url,
            "cells": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": {"type": "str", "required": True}, "connection": url, "transport_url": url},
            },
            "expected_hosts": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 180},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode and IMPORT_ERROR:
        all_to_do(module)
    require_pymysql(module)
    import pymysql

    urls = [params["api_connection"], params["cell0_connection"]]
    urls += [entry[name] for entry in params["cells"] for name in ("connection", "transport_url")]
    secrets = {secret for entry in urls for secret in secrets_of(entry)}
    module.no_log_values.update(secrets)
    try:
        result = converge(module, wanted_cells(params), NovaManage(params["api_connection"]))
    except ValueError as error:
        module.fail_json(msg=f"The cells cannot be converged: {error}.")
    except ToolError as error:
        module.fail_json(msg=f"The cells could not be converged: {error}\n{last_lines(error.output, secrets)}".rstrip())
    except pymysql.MySQLError as error:
        hint = "Check the URL and that MariaDB runs."
        if tables_missing(error):
            hint = "Upgrade the schemas first (openstack_schemas)."
        if module.check_mode and unreachable(error) and mariadb_is_deployed():
            not_looked_at(module, "The cells", error, mappings=[], hosts=[], mapped=[], missing=[], waited=0.0)
        if module.check_mode:
            all_to_do(module)
        module.fail_json(msg=f"Nova's databases cannot be read: {error}. {hint}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
