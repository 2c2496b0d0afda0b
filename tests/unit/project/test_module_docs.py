# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What a module's documentation says is what the module does."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.basic import PASSWORD_MATCH

PROJECT = Path(__file__).resolve().parents[3]
MODULES = sorted(path.stem for path in (PROJECT / "library").glob("*.py"))
FRAGMENTS = sorted(path.stem for path in (PROJECT / "plugins" / "doc_fragments").glob("*.py"))
ACTIONS = sorted(path.stem for path in (PROJECT / "plugins" / "action").glob("*.py"))
TYPES = {"str", "int", "float", "bool", "list", "dict", "path", "raw", "jsonarg", "json", "bytes", "bits"}
RETURN_TYPES = TYPES | {"complex"}


def constants(path: Path) -> dict[str, str]:
    """The string constants at a file's top level, without importing it."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found[target.id] = node.value.value
    return found


@functools.cache
def rendered() -> dict[str, dict[str, Any]]:
    """What ansible-doc makes of all modules, with their documentation fragments."""
    command = [sys.executable, "-m", "ansible", "doc", "-t", "module", "--json", *MODULES]
    environment = os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environment
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def documentation(module: str) -> dict[str, Any]:
    """DOCUMENTATION of a module as data."""
    assert module in rendered(), f"ansible-doc does not know {module}"
    return dict(rendered()[module]["doc"])


class Stop(BaseException):
    """Ends main() as soon as its arguments are known."""


def ansible_module_arguments(module: str) -> dict[str, Any]:
    """What a module's main() passes to AnsibleModule. Empty where the module only documents an action plugin."""
    imported = importlib.import_module(module)
    if not hasattr(imported, "main"):
        assert module in ACTIONS, f"library/{module}.py has no main(), and no action plugin does its work"
        return {}
    recorded: dict[str, Any] = {}

    def record(*positional: Any, **named: Any) -> None:
        recorded.update(zip(("argument_spec",), positional, strict=False), **named)
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imported, "AnsibleModule", record)
        patch.setattr(sys, "argv", [module])
        with pytest.raises(Stop):
            imported.main()
    return recorded


def action_argument_spec(name: str) -> Mapping[str, Any] | None:
    """ARGUMENT_SPEC of the action plugin of a module, if the plugin takes the options itself."""
    spec = (
        getattr(importlib.import_module(f"plugins.action.{name}"), "ARGUMENT_SPEC", None) if name in ACTIONS else None
    )
    assert spec is None or isinstance(spec, Mapping)
    return spec


def argument_spec(module: str) -> Mapping[str, Any]:
    """The argument_spec of what users call: the action plugin, or else the module."""
    recorded = ansible_module_arguments(module)
    found = action_argument_spec(module) or recorded.get("argument_spec")
    assert found is not None, f"plugins/action/{module}.py has no ARGUMENT_SPEC to compare with its documentation"
    return found


def differences(documented: Mapping[str, Any], specified: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Where documented options and an argument_spec differ, one sentence each."""
    for name in sorted(documented.keys() | specified.keys()):
        path = f"{where}{name}"
        if name not in documented:
            yield f"{path} is not documented"
            continue
        if name not in specified:
            yield f"{path} is documented, but not in argument_spec"
            continue
        doc, spec = documented[name] or {}, specified[name]
        if not doc.get("description"):
            yield f"{path} has no description"
        for key, fallback in (
            ("type", "str"),
            ("elements", None),
            ("required", False),
            ("default", None),
            ("aliases", []),
        ):
            if doc.get(key, fallback) != spec.get(key, fallback):
                said, meant = doc.get(key, fallback), spec.get(key, fallback)
                yield f"{path}: {key} is {said!r} in the documentation, {meant!r} in argument_spec"
        if doc.get("type", "str") not in TYPES:
            yield f"{path}: {doc['type']!r} is not a type"
        choices = doc.get("choices") or []
        if sorted(map(str, choices)) != sorted(map(str, spec.get("choices") or [])):
            yield f"{path}: choices differ: {choices} and {spec.get('choices')}"
        yield from differences(doc.get("suboptions") or {}, spec.get("options") or {}, f"{path}.")


def unmarked_secrets(specified: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Options that sound secret and do not say whether they are."""
    for name, spec in specified.items():
        path = f"{where}{name}"
        plain = spec.get("type", "str") in {"bool", "int"} or spec.get("choices")
        if PASSWORD_MATCH.search(name) and not plain and not spec.get("options") and spec.get("no_log") is None:
            yield path
        yield from unmarked_secrets(spec.get("options") or {}, f"{path}.")


def misuse(given: Any, documented: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """What an example passes that is not documented, and what it leaves out that is required."""
    if not isinstance(given, Mapping):
        return
    for name, value in given.items():
        path = f"{where}{name}"
        known = {alias: key for key, option in documented.items() for alias in [key, *option.get("aliases", [])]}
        if name not in known:
            yield f"{path} is not an option"
            continue
        suboptions = documented[known[name]].get("suboptions")
        if suboptions:
            for item in value if isinstance(value, list) else [value]:
                yield from misuse(item, suboptions, f"{path}.")
    for name, option in documented.items():
        if option.get("required") and name not in given:
            yield f"{where}{name} is required"


@pytest.mark.parametrize("module", MODULES)
def test_documentation_has_every_part(module: str) -> None:
    documented = documentation(module)
    assert documented["module"] == module
    for part in ("short_description", "description", "version_added", "author", "attributes"):
        assert documented.get(part), f"DOCUMENTATION of {module} has no {part}"
    assert not documented["short_description"].endswith(".")
    for mode in ("check_mode", "diff_mode"):
        assert documented["attributes"][mode]["support"] in {"full", "partial", "none", "N/A"}


@pytest.mark.parametrize("module", MODULES)
def test_documentation_matches_argument_spec(module: str) -> None:
    assert list(differences(documentation(module).get("options") or {}, argument_spec(module))) == []


@pytest.mark.parametrize("module", MODULES)
def test_secret_options_say_so(module: str) -> None:
    assert list(unmarked_secrets(argument_spec(module))) == []


@pytest.mark.parametrize("module", MODULES)
def test_check_mode_is_documented_as_it_is(module: str) -> None:
    recorded = ansible_module_arguments(module)
    if recorded:
        supported = documentation(module)["attributes"]["check_mode"]["support"] in {"full", "partial"}
        assert recorded.get("supports_check_mode", False) == supported


@pytest.mark.parametrize("module", MODULES)
def test_examples_use_options_that_exist(module: str) -> None:
    tasks = yaml.safe_load(constants(PROJECT / "library" / f"{module}.py")["EXAMPLES"])
    options = documentation(module).get("options") or {}
    assert tasks
    users = [task for task in tasks if module in task]
    assert users, f"no example of {module} uses it"
    assert [problem for task in users for problem in misuse(task[module] or {}, options)] == []
    assert all(task.get("name") for task in tasks), "every example has a name"


@pytest.mark.parametrize("module", MODULES)
def test_return_values_are_described(module: str) -> None:
    returned = yaml.safe_load(constants(PROJECT / "library" / f"{module}.py")["RETURN"])
    assert isinstance(returned, dict)
    for name, value in returned.items():
        assert value.get("description") and value.get("returned"), f"RETURN of {module}: {name}"
        assert value.get("type") in RETURN_TYPES, f"RETURN of {module}: {name}"


@pytest.mark.parametrize("module", MODULES)
def test_module_has_unit_tests(module: str) -> None:
    uses = re.compile(
        rf"^\s*(import |from |from plugins\.action\.|from plugins\.action import .*){module}\b", re.MULTILINE
    )
    tests = [path for path in (PROJECT / "tests" / "unit").rglob("test_*.py") if uses.search(path.read_text())]
    assert tests, f"no test in tests/unit imports {module}"


@pytest.mark.parametrize("action", ACTIONS)
def test_action_plugin_is_documented_as_a_module(action: str) -> None:
    assert action in MODULES, f"plugins/action/{action}.py: library/{action}.py with its documentation is missing"


def test_ansible_doc_renders_all_modules() -> None:
    assert MODULES
    assert sorted(rendered()) == MODULES


def test_every_fragment_is_shared() -> None:
    written = [yaml.safe_load(constants(PROJECT / "library" / f"{name}.py")["DOCUMENTATION"]) for name in MODULES]
    uses = Counter(name for one in written for name in one.get("extends_documentation_fragment", []))
    assert FRAGMENTS
    assert [name for name in FRAGMENTS if uses[name] < 2] == []


# The comparisons above must be able to fail.
OPTIONS = {
    "name": {"description": "A name.", "type": "str", "required": True},
    "items": {
        "description": "Some.",
        "type": "list",
        "elements": "dict",
        "suboptions": {"size": {"description": "MiB.", "type": "int", "default": 1}},
    },
}
SPEC = {
    "name": {"type": "str", "required": True},
    "items": {"type": "list", "elements": "dict", "options": {"size": {"type": "int", "default": 1}}},
}


def test_equal_options_have_no_differences() -> None:
    assert list(differences(OPTIONS, SPEC)) == []


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"name": {"type": "path", "required": True}},
            "name: type is 'str' in the documentation, 'path' in argument_spec",
        ),
        ({"name": {"type": "str"}}, "name: required is True in the documentation, False in argument_spec"),
        ({"other": {}}, "other is not documented"),
        (
            {"items": {"type": "list", "elements": "dict", "options": {"size": {"type": "int", "default": 2}}}},
            "items.size: default is 1 in the documentation, 2 in argument_spec",
        ),
        (
            {"name": {"type": "str", "required": True, "choices": ["a"]}},
            "name: choices differ: [] and ['a']",
        ),
    ],
)
def test_every_difference_is_found(changed: dict[str, Any], sentence: str) -> None:
    assert list(differences(OPTIONS, SPEC | changed)) == [sentence]


def test_misuse_is_found() -> None:
    assert list(misuse({"items": [{"sise": 3}]}, OPTIONS)) == ["items.sise is not an option", "name is required"]


def test_unmarked_secret_is_found() -> None:
    spec = {"users": {"type": "list", "options": {"password": {"type": "str"}, "password_hash": {"no_log": True}}}}
    assert list(unmarked_secrets(spec)) == ["users.password"]
