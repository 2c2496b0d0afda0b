# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Nova's cell mappings and compute hosts, as its databases hold them, and what to change about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ansible.module_utils.kilonova.config.urls import masked_url
from ansible.module_utils.kilonova.database.mariadb import NO_SUCH_TABLE, error_code, rows

if TYPE_CHECKING:
    from pymysql.connections import Connection

CELL0 = "cell0"
CELL0_UUID = "00000000-0000-0000-0000-000000000000"
# Nova never sends messages to cell0; this is what map_cell0 stores (nova/cmd/manage.py).
CELL0_TRANSPORT = "none:///"


@dataclass(frozen=True)
class Cell:
    """A cell as it is mapped or has to be; ``uuid`` is empty where none is known yet."""

    name: str
    connection: str = field(repr=False)
    transport_url: str = field(repr=False)
    uuid: str = ""


@dataclass
class Host:
    """What a cell's database knows about one compute host. Times are seconds before now."""

    name: str
    cell: str
    has_node: bool = False
    node_mapped: bool = False
    has_service: bool = False
    disabled: bool = False
    last_report: int | None = None


@dataclass(frozen=True)
class CellChange:
    """One mapping to make or correct; ``before`` is None for a cell without one."""

    before: Cell | None
    after: Cell

    @property
    def text(self) -> str:
        if self.before is None:
            return f"map {self.after.name}"
        wrong = [label for label, old, new in self.fields() if old != new]
        return f"correct the {' and '.join(wrong)} of {self.after.name}"

    def fields(self) -> list[tuple[str, str, str]]:
        before = self.before or Cell("", "", "")
        return [
            ("name", before.name, self.after.name),
            ("database connection", before.connection, self.after.connection),
            ("transport URL", before.transport_url, self.after.transport_url),
        ]

    def diff(self) -> tuple[dict[str, str], dict[str, str]]:
        """The fields that differ, passwords masked."""
        before, after = {}, {}
        for label, old, new in self.fields():
            if old == new:
                continue
            before[label], after[label] = masked_url(old), masked_url(new)
            if before[label] == after[label]:
                before[label] += " (old password)"
                after[label] += " (new password)"
        return ({} if self.before is None else before), after


def read_cells(api: Connection) -> list[Cell]:
    """All cell mappings. Raises pymysql.MySQLError."""
    query = "SELECT uuid, name, transport_url, database_connection FROM cell_mappings ORDER BY id"
    return [
        Cell(row["name"] or "", row["database_connection"] or "", row["transport_url"] or "", row["uuid"])
        for row in rows(api, query)
    ]


def read_mapped_hosts(api: Connection) -> set[str]:
    """Names of the hosts that are mapped to a cell. Raises pymysql.MySQLError."""
    return {row["host"] for row in rows(api, "SELECT host FROM host_mappings")}


def read_hosts(cell: str, connection: Connection) -> dict[str, Host]:
    """The compute hosts that registered in a cell. Raises pymysql.MySQLError."""
    hosts: dict[str, Host] = {}
    query = "SELECT host, MIN(mapped) AS mapped FROM compute_nodes WHERE deleted = 0 AND host IS NOT NULL GROUP BY host"
    for row in rows(connection, query):
        hosts[row["host"]] = Host(row["host"], cell, has_node=True, node_mapped=bool(row["mapped"]))
    query = (
        "SELECT host, disabled,"
        " TIMESTAMPDIFF(SECOND, COALESCE(last_seen_up, updated_at, created_at), UTC_TIMESTAMP()) AS age"
        " FROM services WHERE deleted = 0 AND `binary` = 'nova-compute'"
    )
    for row in rows(connection, query):
        host = hosts.setdefault(row["host"], Host(row["host"], cell))
        host.has_service, host.disabled, host.last_report = True, bool(row["disabled"]), row["age"]
    return hosts


def tables_missing(error: Exception) -> bool:
    return error_code(error) == NO_SUCH_TABLE


def plan_cells(mapped: list[Cell], wanted: list[Cell]) -> list[CellChange]:
    """The mappings to make or correct. A cell is recognised by its UUID, its name or its database.

    Raises ValueError for a cell that could be any of several.
    """
    changes = []
    for cell in wanted:
        found = find_cell(mapped, cell)
        if found is None:
            changes.append(CellChange(None, cell))
            continue
        after = Cell(cell.name, cell.connection, cell.transport_url, found.uuid)
        if found != after:
            changes.append(CellChange(found, after))
    return changes


def find_cell(mapped: list[Cell], cell: Cell) -> Cell | None:
    if cell.uuid:
        return next((found for found in mapped if found.uuid == cell.uuid), None)
    by_name = [found for found in mapped if found.name == cell.name]
    if len(by_name) > 1:
        uuids = ", ".join(found.uuid for found in by_name)
        raise ValueError(
            f"{len(by_name)} cells are called {cell.name}: {uuids}. Delete those without hosts "
            "(nova-manage cell_v2 list_hosts, delete_cell --cell_uuid)"
        )
    by_database = [found for found in mapped if found.connection == cell.connection and found.uuid != CELL0_UUID]
    return next(iter([*by_name, *by_database]), None)


def before_map_cell0(connection: str) -> str:
    """What map_cell0 makes the wanted URL of: it appends _cell0 to the database and removes one layer of quoting."""
    base, mark, query = connection.partition("?")
    return (base.removesuffix("_cell0") + mark + query).replace("%", "%25")


def waiting_for(expected: list[str], mapped: set[str], hosts: dict[str, Host]) -> list[str]:
    """The expected hosts that are neither mapped nor ready to be."""
    ready = mapped | {name for name, host in hosts.items() if host.has_node}
    return [name for name in dict.fromkeys(expected) if name not in ready]


def unmapped(mapped: set[str], hosts: dict[str, Host]) -> list[str]:
    """The registered hosts that Nova does not schedule to, because they are not mapped."""
    return sorted(name for name, host in hosts.items() if host.has_node and name not in mapped)


def about_host(name: str, hosts: dict[str, Host]) -> str:
    """What is known of a host that has no compute node."""
    host = hosts.get(name)
    if host is None:
        return (
            f"{name}: its nova-compute never registered in any cell. It does not run, has another name there "
            "(option host), or does not reach RabbitMQ or a conductor"
        )
    state = "disabled, " if host.disabled else ""
    return (
        f"{name}: its service registered in {host.cell} ({state}last report {host.last_report} s ago), but has no "
        "compute node: nova-compute cannot use libvirt there, or Placement does not answer it"
    )


def missing_message(missing: list[str], hosts: dict[str, Host], mapped: set[str], timeout: float) -> str:
    """The failure after waiting in vain."""
    known = sorted(mapped | {name for name, host in hosts.items() if host.has_node})
    lines = [about_host(name, hosts) for name in missing]
    return (
        f"{len(missing)} expected compute host(s) did not register within {timeout:g} s:\n- "
        + "\n- ".join(lines)
        + f"\nRegistered compute hosts: {', '.join(known) or 'none'}. See nova-compute's log on the missing ones."
    )


def diff_of(changes: list[CellChange], hosts: list[str]) -> dict[str, dict[str, Any]]:
    """Mappings and hosts that change, for Ansible's diff."""
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for change in changes:
        old, new = change.diff()
        after[change.after.name] = new
        if old:
            before[change.after.name] = old
    if hosts:
        before["mapped hosts"], after["mapped hosts"] = [], hosts
    return {"before": before, "after": after}
