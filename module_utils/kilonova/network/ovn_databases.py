# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Keep on which addresses OVN's databases listen, for whom, and with which certificates.

Documented in library/ovn_databases.py.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.network.ovs_chassis import SSL, as_list
from ansible.module_utils.kilonova.system.dry_run import not_looked_at
from ansible.module_utils.kilonova.system.logs import unit_log
from ansible.module_utils.kilonova.system.waiting import look_until

ARGUMENT_SPEC: dict[str, Any] = {
    "databases": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True, "choices": ["northbound", "southbound"]},
            "connections": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {"target": {"type": "str", "required": True}, "role": {"type": "str", "default": ""}},
            },
            "private_key": {"type": "path", "required": True, "no_log": False},
            "certificate": {"type": "path", "required": True},
            "ca_cert": {"type": "path", "required": True},
        },
    },
    "timeout": {"type": "int", "default": 60},
}
POLL_SECONDS = 0.5
# A database that runs answers a dry run at once.
DRY_RUN_TIMEOUT = 5


@dataclass(frozen=True)
class Database:
    """What differs between the databases."""

    schema: str
    program: str
    table: str
    socket: str
    unit: str


DATABASES = {
    "northbound": Database(
        "OVN_Northbound", "ovn-nbctl", "NB_Global", "/run/ovn/ovnnb_db.sock", "ovn-ovsdb-server-nb.service"
    ),
    "southbound": Database(
        "OVN_Southbound", "ovn-sbctl", "SB_Global", "/run/ovn/ovnsb_db.sock", "ovn-ovsdb-server-sb.service"
    ),
}


@dataclass
class State:
    """What a database says of its connections, {target: role}, and its key, certificate and authority."""

    connections: dict[str, str] = field(default_factory=dict)
    ssl: list[str] = field(default_factory=list)


def state_from(answer: Sequence[Mapping[str, Any]]) -> State:
    """Read the state from the answer to query()."""
    for part in answer:
        if part.get("error"):
            raise ValueError(f"{part['error']}: {part.get('details', '')}")
    connections, ssl = (part["rows"] for part in answer)

    # RFC 7047 writes an empty set as ["set", []].
    def text(cell: Any) -> str:
        return "" if isinstance(cell, list) else str(cell)

    return State(
        {row["target"]: text(row.get("role", "")) for row in connections},
        [text(row[name]) for row in ssl for name in SSL],
    )


def query(database: Database) -> str:
    """Return the transaction that reads connections and certificates. A northbound database has no roles."""
    columns = ["target", "role"] if database.schema == "OVN_Southbound" else ["target"]
    return json.dumps(
        [
            database.schema,
            {"op": "select", "table": "Connection", "where": [], "columns": columns},
            {"op": "select", "table": "SSL", "where": [], "columns": list(SSL)},
        ]
    )


def plan(name: str, state: State, params: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the arguments of ovn-nbctl or ovn-sbctl that a database needs, and a line for each change."""
    arguments: list[str] = []
    changes: list[str] = []
    wanted = {one["target"]: one["role"] for one in params["connections"]}
    if wanted != state.connections:
        arguments += ["--", "set-connection"] if wanted else ["--", "del-connection"]
        # A role holds for all targets that follow it.
        for target, role in sorted(wanted.items(), key=lambda one: (one[1], one[0])):
            arguments += [f"role={role}", target] if role else [target]
        for target in sorted({*wanted, *state.connections}):
            before, after = (
                f"for {found[target] or 'all'}" if target in found else "closed"
                for found in (state.connections, wanted)
            )
            if before != after:
                changes.append(f"OVN {name}: {target} {after}")
    ssl = [params[one] for one in SSL]
    if ssl != state.ssl:
        # Before the connections that use them.
        arguments = ["--", "set-ssl", *ssl, *arguments]
        changes.insert(0, f"OVN {name}: certificate {params['certificate']}")
    return arguments, changes


def read(module: AnsibleModule, database: Database) -> State | str:
    """Return the state of a database, or why it does not answer."""
    program, socket = shutil.which("ovsdb-client"), database.socket
    if program is None or not os.path.exists(socket):
        return f"{socket if program else 'ovsdb-client'} does not exist"
    command = [program, f"--timeout={DRY_RUN_TIMEOUT}", "transact", f"unix:{socket}", query(database)]
    code, output, error = module.run_command(command)
    if code != 0:
        return str(error.strip() or output.strip())
    try:
        return state_from(as_list(json.loads(output)))
    except ValueError as problem:
        return str(problem)


def run(module: AnsibleModule) -> None:
    """Apply the differences of each database in one transaction."""
    deadline = time.monotonic() + module.params["timeout"]
    changes: list[str] = []
    for params in module.params["databases"]:
        database = DATABASES[params["name"]]
        installed = shutil.which(database.program) is not None
        # It may be starting.
        state = look_until(
            module, partial(read, module, database), lambda found: not isinstance(found, str), deadline, POLL_SECONDS
        )
        if isinstance(state, str) and not module.check_mode:
            module.fail_json(msg=f"OVN's {params['name']} database does not answer: {state}\n{unit_log(database.unit)}")
        if isinstance(state, str) and installed:
            not_looked_at(module, f"OVN's {params['name']} database", state, changes=changes)
        arguments, found = plan(params["name"], State() if isinstance(state, str) else state, params)
        changes += found
        if arguments and not module.check_mode:
            command = [database.program, f"--db=unix:{database.socket}", "--timeout=30", *arguments]
            code, output, error = module.run_command(command)
            if code != 0:
                module.fail_json(
                    msg=f"'{' '.join(command)}' failed: {error.strip() or output.strip()}\n{unit_log(database.unit)}"
                )
    module.exit_json(changed=bool(changes), changes=changes)
