# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The database schemas of the OpenStack services, and how each is upgraded."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of schema.

    package, scripts: the Python package and the directory in it that holds alembic's version scripts.
    section: the configuration section whose ``connection`` the tool reads. user: the system user to run as.
    command: the upgrade; ``{config}`` stands for the options that name the configuration.
    seeded: tables that the migrations themselves put rows into (the root domain; default security group rules).
    Where every other table is empty, the service was never used.
    """

    package: str
    scripts: str
    user: str
    section: str
    command: tuple[str, ...]
    seeded: tuple[str, ...] = ()

    def directory(self) -> str | None:
        """Where the scripts are installed; None when the package is not installed. Imports nothing of the service."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            return None
        return os.path.join(next(iter(spec.submodule_search_locations)), self.scripts)


_NOVA_CELL = Kind(
    "nova", "db/main/migrations/versions", "nova", "database", ("nova-manage", "{config}", "db", "sync", "--local_cell")
)
KINDS = {
    "keystone": Kind(
        "keystone",
        "common/sql/migrations/versions",
        "keystone",
        "database",
        ("keystone-manage", "{config}", "db_sync"),
        seeded=("project",),
    ),
    "glance": Kind(
        "glance",
        "db/sqlalchemy/alembic_migrations/versions",
        "glance",
        "database",
        ("glance-manage", "{config}", "db", "sync"),
    ),
    "placement": Kind(
        "placement",
        "db/sqlalchemy/alembic/versions",
        "placement",
        "placement_database",
        ("placement-manage", "{config}", "db", "sync"),
    ),
    "nova_api": Kind(
        "nova",
        "db/api/migrations/versions",
        "nova",
        "api_database",
        ("nova-manage", "{config}", "api_db", "sync"),
    ),
    "neutron": Kind(
        "neutron",
        "db/migration/alembic_migrations/versions",
        "neutron",
        "database",
        ("neutron-db-manage", "{config}", "upgrade", "heads"),
        seeded=("securitygroupdefaultrules", "standardattributes"),
    ),
}
_CELL_NAME = re.compile(r"nova_cell\d+")
LOAD_METADEFS = ("glance-manage", "{config}", "db", "load_metadefs")


def kind_of(name: str) -> Kind:
    """The kind of a schema by its name. Raises ValueError for an unknown name."""
    if _CELL_NAME.fullmatch(name):
        return _NOVA_CELL
    if name not in KINDS:
        raise ValueError(f"the schema '{name}' is none of {', '.join(KINDS)}, nova_cell0, nova_cell1, ...")
    return KINDS[name]
