# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Upgrade the database schemas of OpenStack services."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.database.alembic_scripts import Revision, heads, pending, read_revisions, unknown
from ansible.module_utils.kilonova.database.mariadb import (
    UNKNOWN_DATABASE,
    connect_url,
    error_code,
    pymysql_is_missing,
    require_pymysql,
)
from ansible.module_utils.kilonova.database.schemas import (
    Schema,
    current_revisions,
    drop_when_empty,
    parse_schemas,
    read_schema,
    tables_of,
    words,
)
from ansible.module_utils.kilonova.database.service_tool import ServiceTool, ToolError, last_lines, secrets_of
from ansible.module_utils.kilonova.system.dry_run import mariadb_is_deployed, not_looked_at, unreachable

ARGUMENT_SPEC: dict[str, Any] = {
    "schemas": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "connection": {"type": "str", "required": True, "no_log": True},
            "package": {"type": "str", "required": True},
            "scripts": {"type": "str", "required": True},
            "section": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "command": {"type": "list", "elements": "str", "required": True},
            "seeded": {"type": "list", "elements": "str", "default": []},
            "after": {"type": "list", "elements": "list", "default": []},
        },
    },
    "start_over_when_empty": {"type": "bool", "default": True},
    "parallel": {"type": "int", "default": 0},
    "timeout": {"type": "int", "default": 900},
}

RunCommand = Callable[[list[str]], str]


def converge(schema: Schema, timeout: int, start_over: bool) -> None:
    """Upgrade one schema and run the commands after the upgrade. Store a failure in ``schema.error``."""
    import pymysql

    started = time.monotonic()
    key = f"{schema.url.host}:{schema.url.port}/{schema.url.database}"
    tool = ServiceTool(schema.user, f"schema-{schema.name}", key, timeout)

    def run_command(command: list[str]) -> str:
        databases = {schema.section: (schema.connection, "file")}
        return tool.run(command, {"DEFAULT": {"use_stderr": "true"}}, databases)

    problem = "was not upgraded"
    try:
        with tool.locked():
            upgrade(schema, run_command, start_over)
            problem = "was upgraded, but is not complete"
            if schema.unfinished:
                run_after_commands(schema, run_command)
    except ToolError as error:
        lines = last_lines(error.output, secrets_of(schema.connection))
        schema.error = f"{problem}: {error}\n{lines}".rstrip()
    except (pymysql.MySQLError, OSError) as error:
        schema.error = f"{problem}: {schema.url}: {error}"
    finally:
        schema.seconds = round(time.monotonic() - started, 2)


def read_recorded(schema: Schema) -> int:
    """Read the recorded revisions again and return the number of tables. Raises pymysql.MySQLError."""
    with closing(connect_url(schema.url)) as connection:
        schema.after = current_revisions(connection)
        return len(tables_of(connection, schema.url.database))


def upgrade(schema: Schema, run_command: RunCommand, start_over: bool) -> None:
    """Upgrade one schema. Raises ToolError, pymysql.MySQLError and OSError."""
    # An earlier call may have done the upgrade while this one waited for the lock.
    tables = read_recorded(schema)
    if not pending(schema.revisions, schema.after or []):
        return
    if schema.after_commands:
        os.makedirs(os.path.dirname(schema.begun_file), exist_ok=True)
        with open(schema.begun_file, "w", encoding="utf-8"):
            pass
    try:
        run_command(schema.command)
    except ToolError as error:
        # A half applied migration fails in many ways (1050 table exists, 1054 unknown column, ...), so that the error
        # code does not matter.
        if not (tables and start_over and drop_when_empty(schema)):
            raise ToolError(f"{error}.{explain(schema, tables)}", error.output) from error
        schema.started_over = True
        run_command(schema.command)
    read_recorded(schema)
    missing = pending(schema.revisions, schema.after or [])
    if missing:
        raise ToolError(f"its tool succeeded, yet these revisions are not recorded: {', '.join(sorted(missing))}")


def run_after_commands(schema: Schema, run_command: RunCommand) -> None:
    """Run the commands after an upgrade. Raises ToolError and OSError."""
    for command in schema.after_commands:
        try:
            run_command(command)
        except ToolError as error:
            raise ToolError(f"'{words(command)}' failed: {error}", error.output) from error
        schema.commands.append(words(command))
    os.unlink(schema.begun_file)


def explain(schema: Schema, tables: int) -> str:
    """Return what to do about a failed upgrade of a database that held tables."""
    if not tables:
        return ""
    return (
        f" The database {schema.url.database} held {tables} tables of an earlier upgrade; the recorded revisions are "
        + (", ".join(schema.after or []) or "none")
        + ". If that upgrade was interrupted, a migration may be half applied. Nothing was dropped, because the "
        "database holds data or start_over_when_empty is off. Finish or undo by hand what the error names, or "
        "restore a backup taken before the upgrade, then run again."
    )


def prepare(module: AnsibleModule, schemas: list[Schema]) -> dict[str, str]:
    """Read scripts and databases, and return what prevents an upgrade, by schema."""
    scripts: dict[str, dict[str, Revision]] = {}
    problems = {}
    for schema in schemas:
        directory = schema.directory()
        if directory is None or pymysql_is_missing():
            if not module.check_mode:
                problems[schema.name] = f"the Python package {schema.package} is not installed"
            schema.pending = 1
            continue
        try:
            if directory not in scripts:
                scripts[directory] = read_revisions(directory)
            schema.revisions = scripts[directory]
        except (OSError, ValueError, SyntaxError) as error:
            problems[schema.name] = f"the migration scripts cannot be read: {error}"
            continue
        problem = look(module, schema)
        if problem:
            problems[schema.name] = problem
    return problems


def look(module: AnsibleModule, schema: Schema) -> str:
    """Read one database, and return what prevents an upgrade."""
    import pymysql

    try:
        read_schema(schema, dry_run=module.check_mode)
    except (pymysql.MySQLError, OSError) as error:
        if module.check_mode and unreachable(error) and mariadb_is_deployed():
            not_looked_at(module, "The database schemas", error, upgraded=[], schemas={}, commands=[])
        if module.check_mode and (unreachable(error) or error_code(error) == UNKNOWN_DATABASE):
            schema.pending = len(schema.revisions)
            return ""
        return f"{schema.url} cannot be read: {error}"
    newer = unknown(schema.revisions, schema.before or [])
    if not newer:
        return ""
    return (
        f"{schema.url} has the revision {', '.join(newer)}, which the installed {schema.package} does not know; it is "
        f"newer than the installed code and cannot be downgraded. Install the {schema.package} that made it, or "
        "restore an older database"
    )


def diff_of(schemas: list[Schema]) -> dict[str, dict[str, Any]]:
    """Return the revisions and the commands, for Ansible's diff."""
    after = {schema.name: schema.after for schema in schemas}
    commands = {f"commands of {schema.name}": schema.commands for schema in schemas if schema.commands}
    return {"before": {schema.name: schema.before for schema in schemas}, "after": {**after, **commands}}


def run(module: AnsibleModule) -> None:
    """Upgrade the schemas."""
    params = module.params
    if not module.check_mode:
        require_pymysql(module)
    for entry in params["schemas"]:
        # Ansible masks the URL only as a whole.
        module.no_log_values.update(secrets_of(entry["connection"]))
    try:
        schemas = parse_schemas(params["schemas"])
    except ValueError as error:
        module.fail_json(msg=f"Parameter schemas: {error}.")
    problems = prepare(module, schemas)
    sentences = [f"{name}: {problem}" for name, problem in problems.items()]
    if problems and not module.check_mode:
        module.fail_json(msg="No schema was touched, because:\n- " + "\n- ".join(sentences))
    todo = [one for one in schemas if one.name not in problems and (one.pending or one.unfinished)]
    # The longest first, so that it does not run alone at the end.
    todo.sort(key=lambda one: -one.pending)
    if module.check_mode:
        for schema in todo:
            schema.commands = [words(command) for command in schema.after_commands]
            schema.after = heads(schema.revisions) if schema.pending else schema.before
    else:
        with ThreadPoolExecutor(params["parallel"] or len(os.sched_getaffinity(0))) as pool:
            calls = [pool.submit(converge, one, params["timeout"], params["start_over_when_empty"]) for one in todo]
            for call in calls:
                call.result()
    result: dict[str, Any] = {
        "changed": bool(todo),
        "upgraded": [schema.name for schema in todo if schema.pending and not schema.error],
        "schemas": {schema.name: schema.result() for schema in schemas},
        "commands": [command for schema in todo for command in schema.commands],
    }
    if problems:
        result["needs_you"] = sentences
    if module._diff:
        result["diff"] = diff_of(todo)
    failed = [schema for schema in schemas if schema.error]
    if failed:
        module.fail_json(msg="\n".join(f"Schema {schema.name} {schema.error}" for schema in failed), **result)
    module.exit_json(**result)
