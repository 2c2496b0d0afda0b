# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The schemas of the parameters, and those of the roles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.kilonova.config.urls import database_url
from ansible.module_utils.kilonova.database.openstack_schemas import ARGUMENT_SPEC
from ansible.module_utils.kilonova.database.schemas import parse_schemas, words

PROJECT = Path(__file__).resolve().parents[4]
URL = database_url("t_user", "@:/%$#'\"\\ ", "127.0.0.1", "t_db")
OPTIONS = ARGUMENT_SPEC["schemas"]["options"]


def entry(**changes: Any) -> dict[str, Any]:
    """An entry of the parameter schemas."""
    return {
        "name": "glance",
        "connection": URL,
        "package": "glance",
        "scripts": "db/versions",
        "section": "database",
        "user": "glance",
        "command": ["glance-manage", "{config}", "db", "sync"],
        "seeded": [],
        "after": [["glance-manage", "{config}", "db", "load_metadefs"]],
        **changes,
    }


def deployed() -> list[dict[str, Any]]:
    """The entries in the maps of all services, with Ansible's defaults and a URL that is rendered."""
    found: list[dict[str, Any]] = []
    for path in sorted(PROJECT.glob("roles/*/vars/main.yml")):
        for name, value in (yaml.safe_load(path.read_text()) or {}).items():
            if name.endswith("_service"):
                found += value.get("schemas", [])
    return [{"seeded": [], "after": [], **one, "connection": URL} for one in found]


def test_schemas_of_all_services_are_complete() -> None:
    entries = deployed()
    assert {"keystone", "glance", "placement", "neutron", "nova_api", "nova_cell0"} <= {one["name"] for one in entries}
    required = {name for name, option in OPTIONS.items() if option.get("required")}
    assert [one["name"] for one in entries if not required <= one.keys() <= OPTIONS.keys()] == []
    schemas = {schema.name: schema for schema in parse_schemas(entries)}
    assert [words(command) for command in schemas["glance"].after_commands] == ["glance-manage db load_metadefs"]
    # Each command starts with the program of the service that owns the scripts.
    assert [name for name, schema in schemas.items() if not schema.command[0].startswith(schema.package)] == []


def test_cells_share_a_schema_that_is_not_the_apis() -> None:
    schemas = {schema.name: schema for schema in parse_schemas(deployed())}
    zero, one, api = (schemas[name] for name in ("nova_cell0", "nova_cell1", "nova_api"))
    assert (zero.scripts, zero.section, zero.command) == (one.scripts, one.section, one.command)
    assert zero.scripts != api.scripts and zero.section != api.section


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry(connection="sqlite:///x")], "of the schema glance cannot be used: the scheme"),
        ([entry()] * 2, "listed more than once: glance"),
        ([entry(name="../x")], "the name '../x' may contain"),
        ([entry(command=["glance-manage", "db_sync"])], "'glance-manage db_sync' of the schema glance lacks {config}"),
        ([entry(after=[["true"]])], "'true' of the schema glance lacks {config}"),
    ],
)
def test_wrong_parameters_are_explained(entries: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_schemas(entries)


def test_a_missing_package_has_no_directory() -> None:
    assert parse_schemas([entry(package="no_such_package")])[0].directory() is None
    directory = parse_schemas([entry(package="yaml", scripts="a/b")])[0].directory()
    assert directory == str(Path(yaml.__file__).parent / "a" / "b")
