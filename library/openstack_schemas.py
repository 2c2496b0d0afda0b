#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Upgrade the database schemas of OpenStack services in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: openstack_schemas
short_description: Upgrade the database schemas of OpenStack services in one call
version_added: "0.1.0"
description:
  - Compares the revisions in each database's C(alembic_version) table with the migration scripts of the installed
    service, which are parsed but not run. Only a schema that lacks revisions is upgraded, by the service's own tool, so
    that a call without a change costs no start of a tool.
  - The tools run at the same time, as many as the host has CPUs, each as its service's system user and with a private,
    temporary configuration below C(/run/kilonova) that is removed afterwards. The service itself needs no
    configuration yet. No secret is in a command line or an environment.
  - Keystone's and Glance's tools run the expand, migrate and contract steps together, which needs the service to be
    stopped or not yet upgraded elsewhere.
  - A tool is not broken off when the connection to the host is lost or this module is killed. It goes on, and another
    call on the same host waits for it.
  - MariaDB commits each change of a table at once. A tool that was killed, or a host that went down, can therefore
    leave a migration half applied, with its revision not recorded, and the same migration then fails because a table,
    column or index exists already or not any more. When an upgrade fails in a database that had tables before, none of
    which holds a row (but those that the migrations put there), so that nothing can be lost, the module drops the
    tables and starts over. Otherwise it fails and says so.
  - Glance's metadata definitions (C(glance-manage db load_metadefs)) are loaded when a namespace of
    C(/etc/glance/metadefs) is missing. Debian's package does not do this, while the API, the CLI
    (C(openstack image metadef namespace list)) and dashboards expect them. Existing ones are left as they are.
options:
  schemas:
    description: Schemas to upgrade.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Which schema it is. One of V(keystone), V(glance), V(placement), V(nova_api), V(nova_cell0), V(nova_cell1)
            (and further cells), V(neutron).
        type: str
        required: true
      connection:
        description: SQLAlchemy URL of the database, C(mysql+pymysql://user:password@host/database). It must exist.
        type: str
        required: true
  load_metadefs:
    description: Load the metadata definitions of the schema V(glance).
    type: bool
    default: true
  start_over_when_empty:
    description: Drop the tables of a half upgraded database when none of them holds a row.
    type: bool
    default: true
  parallel:
    description: How many tools run at the same time; V(0) stands for the number of CPUs.
    type: int
    default: 0
  timeout:
    description: How long one upgrade may take, in seconds. A tool is not ended then, but the module fails.
    type: int
    default: 900
attributes:
  check_mode:
    support: full
    description:
      - Reads the state and reports what would change. A database that does not exist or refuses the login yet, and a
        service that is not installed yet, count as not upgraded.
  diff_mode:
    support: full
    description: Shows the revisions before and after.
notes:
  - Fails before any upgrade when a schema is newer than the installed service, when a database cannot be read, and when
    a service is not installed.
  - Fails with the last lines of a tool's output, in which secrets are masked. The other upgrades are completed first.
requirements: [python3-pymysql, the services' own packages]
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Upgrade the schemas
  openstack_schemas:
    schemas:
      - name: keystone
        connection: "{{ 'keystone' | database_url(keystone_database_password, '192.0.2.10', 'keystone') }}"
      - name: nova_api
        connection: "{{ 'nova' | database_url(nova_database_password, '192.0.2.10', 'nova_api') }}"
      - name: nova_cell0
        connection: "{{ 'nova' | database_url(nova_database_password, '192.0.2.10', 'nova_cell0') }}"
      - name: nova_cell1
        connection: "{{ 'nova' | database_url(nova_database_password, '192.0.2.10', 'nova') }}"
"""

RETURN = r"""
upgraded:
  description: Names of the schemas that were upgraded, or would be in check mode.
  returned: always
  type: list
  elements: str
schemas:
  description: What is known about each schema, by name.
  returned: always
  type: dict
  contains:
    before:
      description: Recorded revisions when the module started; null where they could not be read in check mode.
      type: list
      elements: str
    after:
      description: Recorded revisions in the end. In check mode, the last ones of the installed scripts.
      type: list
      elements: str
    pending:
      description: How many revisions were missing.
      type: int
    seconds:
      description: How long the upgrade took, in seconds.
      type: float
    started_over:
      description: Whether the tables of a half upgraded, empty database were dropped.
      type: bool
metadefs:
  description: Namespaces of Glance's metadata definitions that were loaded, or would be in check mode.
  returned: always
  type: list
  elements: str
not_looked_at:
  description: Why a dry run could not see, though MariaDB is installed. RV(ignore:changed) is then false.
  returned: in check mode, when MariaDB does not answer
  type: str
"""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.config.urls import DatabaseUrl, parse_database_url
from ansible.module_utils.kilonova.database.alembic_scripts import Revision, heads, pending, read_revisions, unknown
from ansible.module_utils.kilonova.database.mariadb import (
    IMPORT_ERROR,
    NO_SUCH_TABLE,
    UNKNOWN_DATABASE,
    connect_to_read,
    connect_url,
    error_code,
    identifier,
    require_pymysql,
    rows,
)
from ansible.module_utils.kilonova.database.schemas import LOAD_METADEFS, Kind, kind_of
from ansible.module_utils.kilonova.database.service_tool import ServiceTool, ToolError, last_lines, secrets_of
from ansible.module_utils.kilonova.system.dry_run import mariadb_is_deployed, not_looked_at, unreachable

if TYPE_CHECKING:
    from pymysql.connections import Connection

METADEFS_DIRECTORY = "/etc/glance/metadefs"


@dataclass
class Schema:
    """One schema to upgrade and what is known about it."""

    name: str
    connection: str = field(repr=False)
    kind: Kind
    url: DatabaseUrl
    revisions: dict[str, Revision] = field(default_factory=dict)
    before: list[str] | None = None
    after: list[str] | None = None
    pending: int = 0
    seconds: float = 0.0
    started_over: bool = False
    error: str = ""

    def result(self) -> dict[str, Any]:
        names = ("before", "after", "pending", "seconds", "started_over")
        return {name: getattr(self, name) for name in names}


def parse_schemas(entries: list[dict[str, str]]) -> list[Schema]:
    """The schemas of the parameters. Raises ValueError that names the schema and says what is wrong with it."""
    schemas = []
    for entry in entries:
        kind = kind_of(entry["name"])
        try:
            url = parse_database_url(entry["connection"])
        except ValueError as error:
            raise ValueError(f"the connection of the schema {entry['name']} cannot be used: {error}") from error
        schemas.append(Schema(entry["name"], entry["connection"], kind, url))
    names = [schema.name for schema in schemas]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(f"listed more than once: {', '.join(double)}")
    return schemas


def current_revisions(connection: Connection) -> list[str]:
    """What alembic recorded, sorted; empty before the first upgrade. Raises pymysql.MySQLError."""
    import pymysql

    try:
        return sorted(row["version_num"] for row in rows(connection, "SELECT version_num FROM alembic_version"))
    except pymysql.MySQLError as error:
        if error_code(error) == NO_SUCH_TABLE:
            return []
        raise


def read_schema(schema: Schema, dry_run: bool = False) -> None:
    """Fill in what the database has recorded. Raises pymysql.MySQLError."""
    connection = connect_to_read(schema.url) if dry_run else connect_url(schema.url)
    try:
        schema.before = schema.after = current_revisions(connection)
    finally:
        connection.close()
    schema.pending = len(pending(schema.revisions, schema.before))


def tables_of(connection: Connection, database: str) -> list[str]:
    query = "SELECT TABLE_NAME AS name, TABLE_TYPE AS type FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s"
    return sorted(row["name"] for row in rows(connection, query, (database,)) if row["type"] == "BASE TABLE")


def drop_when_empty(schema: Schema) -> bool:
    """Drop all tables if none holds a row that the migrations did not put there, and say whether this was done."""
    connection = connect_url(schema.url)
    try:
        tables = tables_of(connection, schema.url.database)
        for table in set(tables) - {"alembic_version", *schema.kind.seeded}:
            if rows(connection, f"SELECT 1 FROM {identifier(table)} LIMIT 1"):
                return False
        with connection.cursor() as cursor:
            cursor.execute("SET foreign_key_checks = 0")
            for table in tables:
                cursor.execute(f"DROP TABLE {identifier(table)}")
        return True
    finally:
        connection.close()


def upgrade(schema: Schema, timeout: int, start_over: bool) -> None:
    """Upgrade one schema; a failure ends in ``schema.error``."""
    import pymysql

    started = time.monotonic()
    secrets = secrets_of(schema.connection)
    key = f"{schema.url.host}:{schema.url.port}/{schema.url.database}"
    tool = ServiceTool(schema.kind.user, f"schema-{schema.name}", key, timeout)
    databases = {schema.kind.section: (schema.connection, "file")}
    command, settings = list(schema.kind.command), {"DEFAULT": {"use_stderr": "true"}}
    try:
        with tool.locked():
            # Whoever held the lock before may have done the work.
            connection = connect_url(schema.url)
            schema.after = current_revisions(connection)
            found = len(tables_of(connection, schema.url.database))
            connection.close()
            if pending(schema.revisions, schema.after):
                try:
                    tool.run(command, settings, databases)
                except ToolError as error:
                    # A migration trips over its own remains in many ways (1050 table exists, 1054 unknown column, ...),
                    # so what counts is that there were tables before, not which error it is.
                    if not (found and start_over and drop_when_empty(schema)):
                        schema.error = f"{error}.{explain(schema, found)}\n{last_lines(error.output, secrets)}"
                        return
                    schema.started_over = True
                    tool.run(command, settings, databases)
        connection = connect_url(schema.url)
        schema.after = current_revisions(connection)
        connection.close()
        missing = pending(schema.revisions, schema.after)
        if missing:
            schema.error = f"its tool succeeded, yet these revisions are not recorded: {', '.join(sorted(missing))}"
    except ToolError as error:
        schema.error = f"{error}\n{last_lines(error.output, secrets)}".rstrip()
    except (pymysql.MySQLError, OSError) as error:
        schema.error = f"{schema.url}: {error}"
    finally:
        schema.seconds = round(time.monotonic() - started, 2)


def explain(schema: Schema, tables: int) -> str:
    if not tables:
        return ""
    return (
        f" The database {schema.url.database} held {tables} tables of an earlier upgrade; the recorded revisions are "
        + (", ".join(schema.after or []) or "none")
        + ". If that upgrade was broken off, a migration may be half applied. Nothing was dropped, because the "
        "database holds data or start_over_when_empty is off. Finish or undo by hand what the error names, or "
        "restore a backup taken before the upgrade, then run again."
    )


def missing_metadefs(schema: Schema, dry_run: bool = False) -> list[str]:
    """Namespaces of the installed files that the database lacks; all of them before the first upgrade."""
    wanted = set()
    for name in os.listdir(METADEFS_DIRECTORY) if os.path.isdir(METADEFS_DIRECTORY) else []:
        if name.endswith(".json"):
            with open(os.path.join(METADEFS_DIRECTORY, name), encoding="utf-8") as file:
                wanted.add(json.load(file)["namespace"])
    if not wanted:
        return []
    import pymysql

    try:
        connection = connect_to_read(schema.url) if dry_run else connect_url(schema.url)
        known = {row["namespace"] for row in rows(connection, "SELECT namespace FROM metadef_namespaces")}
        connection.close()
    except pymysql.MySQLError:
        known = set()
    return sorted(wanted - known)


def load_metadefs(schema: Schema, timeout: int) -> None:
    """Load the definitions. Raises ToolError."""
    tool = ServiceTool(schema.kind.user, "metadefs", str(schema.url), timeout)
    settings = {"DEFAULT": {"use_stderr": "true", "metadata_source_path": METADEFS_DIRECTORY}}
    with tool.locked():
        output = tool.run(list(LOAD_METADEFS), settings, {"database": (schema.connection, "file")})
    rest = missing_metadefs(schema)
    if rest:
        raise ToolError(f"glance-manage succeeded, yet these namespaces are missing: {', '.join(rest)}", output)


def prepare(module: AnsibleModule, schemas: list[Schema]) -> None:
    """Read scripts and databases; fail, with all problems at once, where an upgrade could not work."""
    scripts: dict[str, dict[str, Revision]] = {}
    problems = []
    for schema in schemas:
        directory = schema.kind.directory()
        if directory is None or IMPORT_ERROR:
            if not module.check_mode:
                problems.append(f"{schema.name}: the Python package {schema.kind.package} is not installed")
            schema.pending = 1
            continue
        try:
            if directory not in scripts:
                scripts[directory] = read_revisions(directory)
            schema.revisions = scripts[directory]
        except (OSError, ValueError, SyntaxError) as error:
            problems.append(f"{schema.name}: the migration scripts cannot be read: {error}")
            continue
        import pymysql

        try:
            read_schema(schema, dry_run=module.check_mode)
        except (pymysql.MySQLError, OSError) as error:
            if module.check_mode and unreachable(error) and mariadb_is_deployed():
                not_looked_at(module, "The database schemas", error, upgraded=[], schemas={}, metadefs=[])
            if module.check_mode and (unreachable(error) or error_code(error) == UNKNOWN_DATABASE):
                schema.pending = len(schema.revisions)
            else:
                problems.append(f"{schema.name}: {schema.url} cannot be read: {error}")
            continue
        newer = unknown(schema.revisions, schema.before or [])
        if newer:
            problems.append(
                f"{schema.name}: {schema.url} has the revision {', '.join(newer)}, which the installed "
                f"{schema.kind.package} does not know; it is newer than the installed code and cannot be downgraded. "
                f"Install the {schema.kind.package} that made it, or restore an older database"
            )
    if problems:
        module.fail_json(msg="No schema was touched, because:\n- " + "\n- ".join(problems))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "schemas": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "connection": {"type": "str", "required": True, "no_log": True},
                },
            },
            "load_metadefs": {"type": "bool", "default": True},
            "start_over_when_empty": {"type": "bool", "default": True},
            "parallel": {"type": "int", "default": 0},
            "timeout": {"type": "int", "default": 900},
        },
        supports_check_mode=True,
    )
    if IMPORT_ERROR and not module.check_mode:
        require_pymysql(module)
    params = module.params
    for entry in params["schemas"]:
        # The password on its own is as secret as the URL with it.
        module.no_log_values.update(secrets_of(entry["connection"]))
    try:
        schemas = parse_schemas(params["schemas"])
    except ValueError as error:
        module.fail_json(msg=f"Parameter schemas: {error}.")
    prepare(module, schemas)
    # The longest first, so that it does not run alone in the end.
    todo = sorted((schema for schema in schemas if schema.pending), key=lambda schema: -schema.pending)
    glance = next((schema for schema in schemas if schema.name == "glance"), None)
    metadefs = missing_metadefs(glance, module.check_mode) if glance and params["load_metadefs"] else []
    if module.check_mode:
        for schema in todo:
            schema.after = heads(schema.revisions)
    else:
        workers = params["parallel"] or len(os.sched_getaffinity(0))

        def converge(schema: Schema) -> None:
            if schema.pending:
                upgrade(schema, params["timeout"], params["start_over_when_empty"])
            if schema is glance and metadefs and not schema.error:
                try:
                    load_metadefs(schema, params["timeout"])
                except ToolError as error:
                    lines = last_lines(error.output, secrets_of(schema.connection))
                    schema.error = f"the metadata definitions could not be loaded: {error}\n{lines}"

        with ThreadPoolExecutor(max(1, workers)) as pool:
            also = [glance] if glance and metadefs and glance not in todo else []
            list(pool.map(converge, [*todo, *also]))
    failed = [schema for schema in schemas if schema.error]
    result = {
        "changed": bool(todo or metadefs),
        "upgraded": [schema.name for schema in todo if not schema.error],
        "schemas": {schema.name: schema.result() for schema in schemas},
        "metadefs": metadefs,
    }
    if module._diff:
        result["diff"] = {
            "before": {schema.name: schema.before for schema in todo},
            "after": {schema.name: schema.after for schema in todo},
        }
        if metadefs:
            result["diff"]["after"]["metadata definitions"] = metadefs  # type: ignore[index]
    if failed:
        reasons = "\n".join(f"Schema {schema.name} was not upgraded: {schema.error}" for schema in failed)
        module.fail_json(msg=reasons, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
