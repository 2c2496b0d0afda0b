# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Read Nova's cell mappings and compute hosts from its databases, and plan changes to them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ansible.module_utils.kilonova.config.urls import masked_url
from ansible.module_utils.kilonova.database.mariadb import NO_SUCH_TABLE, error_code, rows

if TYPE_CHECKING:
    from pymysql.connections import Connection

CELL0 = "cell0"
CELL0_UUID = "00000000-0000-0000-0000-000000000000"
# nova-manage stores this (nova/cmd/manage.py); nothing sends messages to cell0.
CELL0_TRANSPORT = "none:///"


class AmbiguousCell(ValueError):
    """A cell for which several mappings exist."""


@dataclass(frozen=True)
class Cell:
    """A cell mapping, existing or wanted. ``uuid`` is empty before nova-manage has assigned one."""

    name: str
    connection: str = field(repr=False)
    transport_url: str = field(repr=False)
    uuid: str = ""


@dataclass
class Host:
    """A compute host in the database of a cell. ``last_report`` is in seconds before now."""

    name: str
    cell: str
    has_node: bool = False
    node_mapped: bool = False
    has_service: bool = False
    disabled: bool = False
    last_report: int | None = None


@dataclass(frozen=True)
class CellChange:
    """One mapping to create or correct. ``before`` is None where none exists; ``cell`` has no templates."""

    before: Cell | None
    after: Cell
    cell: Cell

    @property
    def text(self) -> str:
        """Describe the change."""
        if self.before is None:
            return f"map {self.after.name}"
        wrong = [label for label, old, new in self.fields() if old != new]
        return f"correct the {' and '.join(wrong)} of {self.after.name}"

    def fields(self) -> list[tuple[str, str, str]]:
        """Return each field as (label, old value, new value)."""
        before = self.before or Cell("", "", "")
        return [
            ("name", before.name, self.after.name),
            ("database connection", before.connection, self.after.connection),
            ("transport URL", before.transport_url, self.after.transport_url),
        ]

    def diff(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the fields that differ, with passwords masked."""
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
    """Return all cell mappings. Raises pymysql.MySQLError."""
    query = "SELECT uuid, name, transport_url, database_connection FROM cell_mappings ORDER BY id"
    return [
        Cell(row["name"] or "", row["database_connection"] or "", row["transport_url"] or "", row["uuid"])
        for row in rows(api, query)
    ]


def read_mapped_hosts(api: Connection) -> set[str]:
    """Return the names of the hosts that are mapped to a cell. Raises pymysql.MySQLError."""
    return {row["host"] for row in rows(api, "SELECT host FROM host_mappings")}


def read_hosts(cell: str, connection: Connection) -> dict[str, Host]:
    """Return the compute hosts that registered in a cell. Raises pymysql.MySQLError."""
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
    """Return whether a query failed because the schema does not exist yet."""
    return error_code(error) == NO_SUCH_TABLE


def plan_cells(mapped: list[Cell], wanted: list[Cell], local: Cell) -> list[CellChange]:
    """Return the mappings to create or correct, where ``local`` is what nova.conf has. Raises AmbiguousCell."""
    changes = []
    for cell in wanted:
        mapping = mapping_of(cell, local)
        found = find_cell(mapped, cell, mapping)
        after = replace(mapping, uuid=found.uuid) if found else mapping
        if found != after:
            changes.append(CellChange(found, after, cell))
    return changes


def mapping_of(cell: Cell, local: Cell) -> Cell:
    """Return a cell as Nova's database is to hold it: without the parts of URLs that are those of nova.conf."""
    connection = template_of(cell.connection, local.connection)
    if cell.transport_url == CELL0_TRANSPORT:
        return replace(cell, connection=connection)
    return replace(cell, connection=connection, transport_url=template_of(cell.transport_url, local.transport_url))


def template_of(url: str, local: str) -> str:
    """Return a template from which Nova makes a URL: https://docs.openstack.org/nova/2025.1/admin/cells.html.

    Nova fills in the parts of the URL in its configuration, ``local``. The URL stays where login or hosts differ.
    """
    parts, same = urlsplit(url), urlsplit(local)
    if (parts.scheme, parts.netloc) != (same.scheme, same.netloc):
        return url
    members = parts.netloc.split(",")
    numbers = [""] if len(members) == 1 else [str(number) for number in range(1, len(members) + 1)]
    places = ",".join(f"{{username{n}}}:{{password{n}}}@{{hostname{n}}}:{{port{n}}}" for n in numbers)
    query = f"?{parts.query}" if parts.query else ""
    return f"{{scheme}}://{places}{parts.path}{query}"


def find_cell(mapped: list[Cell], cell: Cell, mapping: Cell) -> Cell | None:
    """Return the mapping of a cell, by UUID, name or database. Raises AmbiguousCell."""
    if cell.uuid:
        return next((found for found in mapped if found.uuid == cell.uuid), None)
    by_name = [found for found in mapped if found.name == cell.name]
    if len(by_name) > 1:
        uuids = ", ".join(found.uuid for found in by_name)
        raise AmbiguousCell(
            f"{len(by_name)} cells are called {cell.name}: {uuids}. Delete those without hosts "
            "(nova-manage cell_v2 list_hosts, delete_cell --cell_uuid)"
        )
    same = {cell.connection, mapping.connection}
    by_database = [found for found in mapped if found.connection in same and found.uuid != CELL0_UUID]
    return next(iter([*by_name, *by_database]), None)


def waiting_for(expected: list[str], mapped: set[str], hosts: dict[str, Host]) -> list[str]:
    """Return the expected hosts that are not mapped and have no compute node to map."""
    ready = mapped | {name for name, host in hosts.items() if host.has_node}
    return [name for name in dict.fromkeys(expected) if name not in ready]


def unmapped(mapped: set[str], hosts: dict[str, Host]) -> list[str]:
    """Return the registered hosts that are not mapped, so that Nova does not schedule to them."""
    return sorted(name for name, host in hosts.items() if host.has_node and name not in mapped)


def about_host(name: str, hosts: dict[str, Host]) -> str:
    """Describe what is known about a host without a compute node."""
    host = hosts.get(name)
    if host is None:
        return (
            f"{name}: nova-compute never registered in any cell. It does not run, uses another name "
            "(option host), or does not reach RabbitMQ or a conductor"
        )
    state = "disabled, " if host.disabled else ""
    return (
        f"{name}: nova-compute registered in {host.cell} ({state}last report {host.last_report} s ago), but has no "
        "compute node: it cannot use libvirt, or Placement does not answer"
    )


def missing_message(missing: list[str], hosts: dict[str, Host], mapped: set[str], timeout: float) -> str:
    """Return the failure message after the timeout."""
    known = sorted(mapped | {name for name, host in hosts.items() if host.has_node})
    lines = [about_host(name, hosts) for name in missing]
    return (
        f"{len(missing)} expected compute host(s) did not register within {timeout:g} s:\n- "
        + "\n- ".join(lines)
        + f"\nRegistered compute hosts: {', '.join(known) or 'none'}. See nova-compute's log on the missing ones."
    )


def diff_of(changes: list[CellChange], hosts: list[str]) -> dict[str, dict[str, Any]]:
    """Return the mappings and hosts that change, for Ansible's diff."""
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
