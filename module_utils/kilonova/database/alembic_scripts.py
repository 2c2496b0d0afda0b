# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Read alembic's migration scripts without importing them."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Revision:
    """The revision that a script defines."""

    name: str
    down: tuple[str, ...] = ()
    depends: tuple[str, ...] = ()


def read_revisions(directory: str) -> dict[str, Revision]:
    """Return all revisions below a directory. Raises OSError, SyntaxError, and ValueError if there are none."""
    revisions: dict[str, Revision] = {}
    for folder, _subfolders, files in os.walk(directory):
        for file in files:
            if file.endswith(".py"):
                with open(os.path.join(folder, file), encoding="utf-8") as script:
                    revision = parse_revision(script.read())
                if revision:
                    revisions[revision.name] = revision
    if not revisions:
        raise ValueError(f"{directory} holds no migration scripts")
    return revisions


def parse_revision(source: str) -> Revision | None:
    """Return the revision that a script defines, if any. Raises SyntaxError and ValueError."""
    # Parsing only the head is faster. alembic's attributes are plain assignments there:
    # https://alembic.sqlalchemy.org/en/latest/tutorial.html
    head = ("\n" + source).split("\ndef ", 1)[0]
    values: dict[str, tuple[str, ...]] = {}
    for statement in ast.parse(head).body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, value = statement.targets[0], statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value:
            target, value = statement.target, statement.value
        else:
            continue
        if isinstance(target, ast.Name) and target.id in ("revision", "down_revision", "depends_on"):
            values[target.id] = _names(ast.literal_eval(value))
    if not values.get("revision"):
        return None
    return Revision(values["revision"][0], values.get("down_revision", ()), values.get("depends_on", ()))


def _names(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(str(name) for name in value)  # type: ignore[attr-defined]


def heads(revisions: Mapping[str, Revision]) -> list[str]:
    """Return the revisions that no other revision follows, sorted."""
    followed = {name for revision in revisions.values() for name in revision.down}
    return sorted(set(revisions) - followed)


def applied(revisions: Mapping[str, Revision], current: Iterable[str]) -> set[str]:
    """Return the current revisions and all that they follow or depend on.

    Alembic does not record a revision on which another recorded one depends: a complete Glance schema names only its
    contract head.
    """
    found: set[str] = set()
    todo = list(current)
    while todo:
        name = todo.pop()
        if name not in found and name in revisions:
            found.add(name)
            todo += [*revisions[name].down, *revisions[name].depends]
    return found


def pending(revisions: Mapping[str, Revision], current: Iterable[str]) -> set[str]:
    """Return the revisions that an upgrade has to apply."""
    return set(revisions) - applied(revisions, current)


def unknown(revisions: Mapping[str, Revision], current: Iterable[str]) -> list[str]:
    """Return current revisions that no script defines, because the schema is newer than the installed code."""
    return sorted(set(current) - set(revisions))
