# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Every filter has documentation that ansible-doc renders and that matches the function.

Ansible reads the documentation of a filter from the YAML file of its name beside the Python file.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[3]
DIRECTORY = PROJECT / "plugins" / "filter"


def filters() -> dict[str, Callable[..., Any]]:
    """Return all filters of plugins/filter by name."""
    found: dict[str, Callable[..., Any]] = {}
    for path in sorted(DIRECTORY.glob("*.py")):
        found |= importlib.import_module(f"plugins.filter.{path.stem}").FilterModule().filters()
    return found


FILTERS = filters()


def problems(name: str, function: Callable[..., Any], documented: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is missing or wrong in the documentation of a filter."""
    text = documented.get("DOCUMENTATION") or {}
    for key in ("short_description", "description", "version_added", "author", "options"):
        if not text.get(key):
            yield f"DOCUMENTATION has no {key}"
    if text.get("name") != name:
        yield f"name is {text.get('name')}"
    if name not in (documented.get("EXAMPLES") or ""):
        yield "EXAMPLES does not use it"
    value = (documented.get("RETURN") or {}).get("_value", {})
    if not (value.get("description") and value.get("type")):
        yield "RETURN does not describe _value"
    options = text.get("options") or {}
    parameters = {
        one.name: one
        for one in inspect.signature(function).parameters.values()
        # Jinja passes the context.
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) and one.name != "context"
    }
    first, *rest = parameters
    if list(options) != ["_input", *rest]:
        yield f"options are {list(options)}, parameters are {[first, *rest]}"
        return
    for option, parameter in zip(options.values(), parameters.values(), strict=True):
        if not (option.get("description") and option.get("type")):
            yield f"{parameter.name} has no description or type"
        if bool(option.get("required")) != (parameter.default is parameter.empty):
            yield f"{parameter.name}: required differs"


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_filter_is_documented(name: str) -> None:
    sidecar = DIRECTORY / f"{name}.yml"
    assert sidecar.is_file(), f"{sidecar} is missing"
    assert list(problems(name, FILTERS[name], yaml.safe_load(sidecar.read_text()))) == []


def test_every_file_documents_a_filter() -> None:
    assert sorted(path.stem for path in DIRECTORY.glob("*.yml")) == sorted(FILTERS)


def test_ansible_doc_renders_all_filters() -> None:
    command = [sys.executable, "-m", "ansible", "doc", "-t", "filter", "--json", *FILTERS]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environment, cwd=PROJECT
    )
    assert done.returncode == 0, done.stderr
    rendered = json.loads(done.stdout)
    assert sorted(rendered) == sorted(FILTERS)
    for name, parts in rendered.items():
        assert parts["doc"]["description"] and parts["examples"] and parts["return"], name


def one(value: str, size: int = 1) -> str:
    """Stand for a filter."""
    return value * size


GOOD: dict[str, Any] = {
    "DOCUMENTATION": {
        "name": "one",
        "short_description": "One",
        "version_added": "0.1.0",
        "author": "A",
        "description": ["Repeats a value."],
        "options": {
            "_input": {"description": "The value.", "type": "str", "required": True},
            "size": {"description": "How often.", "type": "int", "default": 1},
        },
    },
    "EXAMPLES": "{{ 'a' | one(2) }}",
    "RETURN": {"_value": {"description": "The result.", "type": "str"}},
}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({}, None),
        ({"EXAMPLES": "{{ 'a' | two }}"}, "EXAMPLES does not use it"),
        ({"RETURN": {}}, "RETURN does not describe _value"),
        ({"DOCUMENTATION": {**GOOD["DOCUMENTATION"], "name": "two"}}, "name is two"),
        ({"DOCUMENTATION": {**GOOD["DOCUMENTATION"], "description": []}}, "DOCUMENTATION has no description"),
        (
            {"DOCUMENTATION": {**GOOD["DOCUMENTATION"], "options": {"_input": {}, "length": {}}}},
            "options are ['_input', 'length'], parameters are ['value', 'size']",
        ),
    ],
)
def test_every_problem_is_found(changed: dict[str, Any], sentence: str | None) -> None:
    assert list(problems("one", one, GOOD | changed)) == ([sentence] if sentence else [])
