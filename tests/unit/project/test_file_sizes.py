# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Files outside of tests stay short enough to read in one go."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
LIMIT = 400
SKIPPED = {".git", ".venv", ".cache", "__pycache__", "node_modules"}
SUFFIXES = (".py", ".yml", ".yaml", ".sh", ".j2")
DOCUMENTATION = {"DOCUMENTATION", "EXAMPLES", "RETURN"}
SHEBANGS = (b"#!/bin/bash", b"#!/bin/sh", b"#!/usr/bin/env bash")


def is_string(node: ast.AST | None) -> bool:
    """Return whether a node is a string."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def explanations(tree: ast.Module) -> Iterator[ast.stmt]:
    """Find all docstrings, and the documentation of modules and plugins."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and is_string(first.value):
                yield first
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and is_string(statement.value):
            names = {target.id for target in statement.targets if isinstance(target, ast.Name)}
            if names & DOCUMENTATION:
                yield statement


def lines_of_code(name: str, text: str) -> int:
    """Return the number of lines, in Python without docstrings and documentation of modules."""
    count = len(text.splitlines())
    if not name.endswith(".py"):
        return count
    left_out = {
        line
        for node in explanations(ast.parse(text))
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    return count - len(left_out)


def is_code(path: Path) -> bool:
    """Return whether a file is Python, YAML, shell or Jinja."""
    if path.suffix:
        return path.suffix in SUFFIXES
    with path.open("rb") as stream:
        return stream.readline().strip() in SHEBANGS


def code_files() -> list[Path]:
    """Return the files that the limit is for."""
    found = []
    for directory, names, files in os.walk(PROJECT):
        top = Path(directory) == PROJECT
        # Inventories other than those of the project belong to operators.
        names[:] = [name for name in names if name not in SKIPPED and not (top and name in ("tests", "inventory"))]
        paths = [Path(directory, name) for name in files if name != "secrets.yml"]
        found += [path for path in paths if path.is_file() and not path.is_symlink() and is_code(path)]
    return found


def test_no_file_is_too_long() -> None:
    files = code_files()
    assert len(files) > 200
    sizes = {str(path.relative_to(PROJECT)): lines_of_code(path.name, path.read_text()) for path in files}
    assert {"tools/setup", "site.yml", "roles/nova/templates/nova.conf.j2"} <= set(sizes)
    assert {name: size for name, size in sizes.items() if size > LIMIT} == {}


PYTHON = '''\
"""Docstring
of a module."""

DOCUMENTATION = r"""
name: x
"""
OTHER = "counted"
TABLE = {"a": """
counted
"""}


def function() -> None:
    """Docstring
    of a function."""
    text = """
counted"""
'''


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("x.py", PYTHON, 10),
        ("x.py", "x = 1\n" * (LIMIT + 1), LIMIT + 1),
        ("x.yml", PYTHON, 17),
        ("x.py", "", 0),
    ],
)
def test_lines_of_code(name: str, text: str, expected: int) -> None:
    assert lines_of_code(name, text) == expected
