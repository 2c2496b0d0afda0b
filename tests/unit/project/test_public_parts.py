# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Test that Python files take from Ansible what it offers, so that its next release runs them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.unit.project.test_project import files, relative

# In an import, in an expression, or in a string for importlib or monkeypatch; not __path__, which is Python's.
PRIVATE = re.compile(r"^ansible(?:\.\w+)*\._(?!_)\w+")


def names(source: str) -> Iterator[str]:
    """Yield what a Python file imports, its dotted expressions and its strings."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def private(source: str) -> list[str]:
    """Return the private parts of Ansible that a Python file names."""
    return [name for name in names(source) if PRIVATE.match(name)]


def test_private_parts_are_found() -> None:
    package = "ansible" + "._internal"
    assert private(f"import {package}._templating as engine") == [f"{package}._templating"]
    assert private("from ansible import _internal") == [package]
    assert private(f"from {package} import templating") == [f"{package}.templating"]
    assert private("from ansible.template import Templar, _engine") == ["ansible.template" + "._engine"]
    assert private(f"import ansible\n{package}.setup()")
    assert private(f"monkeypatch.setattr('{package}.templating.compile', None)")
    assert private("import ansible.template\nansible.module_utils.__path__.append(self._templar)") == []


def test_nothing_reaches_into_private_parts_of_ansible() -> None:
    found = {relative(path): private(path.read_text(encoding="utf-8")) for path in files(".py")}
    assert len(found) > 400
    assert {path: parts for path, parts in found.items() if parts} == {}
