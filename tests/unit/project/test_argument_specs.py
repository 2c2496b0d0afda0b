# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A role's defaults and its argument specification say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[3]
ROLES = sorted(path for path in (PROJECT / "roles").iterdir() if path.is_dir())
# Roles without tasks of their own: Ansible validates an entry point "main" before each use of a role.
WITHOUT_MAIN = {"common", "service"}
# Names that operators of Nova have known since nova-network; the role common owns them.
UNPREFIXED = {
    "flat_interface",
    "flat_network_bridge",
    "public_interface",
    "fixed_range",
    "network_size",
    "fixed_gateway",
}
PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "path": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
    "raw": (object,),
}
MEASURED = re.compile(r"(timeout|interval|_age|memory|_size|disk|_ram|lifetime|delay)")
UNIT = re.compile(r"second|minute|hour|day|[KMG]i?B\b|byte|number|how many|percent|%", re.IGNORECASE)


def load(path: Path) -> dict[str, Any]:
    """A YAML file's content, nothing where the file is absent."""
    return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}


def defaults(role: Path) -> dict[str, Any]:
    """The defaults of a role. Role common has its own beside the links to those of others."""
    own = role / "defaults" / "main" / f"{role.name}.yml"
    return load(own if own.exists() else role / "defaults" / "main.yml")


def declared(role: Path) -> dict[str, Any]:
    """The variables that a role declares."""
    name = "variables" if role.name in WITHOUT_MAIN else "main"
    options = entry_points(role).get(name, {}).get("options") or {}
    assert isinstance(options, dict)
    return options


def is_template(value: Any) -> bool:
    """Whether a default is known only when Ansible renders it."""
    return "{{" in str(value) or "{%" in str(value)


def entry_points(role: Path) -> dict[str, Any]:
    """All entry points of a role, as meta/argument_specs.yml describes them."""
    return load(role / "meta" / "argument_specs.yml").get("argument_specs", {})


def same(declared: Any, default: Any) -> bool:
    """Whether two defaults are one; Jinja expressions may be wrapped differently."""
    if isinstance(declared, str) and isinstance(default, str):
        return declared.split() == default.split()
    return type(declared) is type(default) and declared == default


def disagreements(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
    """Where a role's options and its defaults differ, one sentence each."""
    for name in sorted(defaults.keys() - options.keys()):
        yield f"{name} has a default, but is not in meta/argument_specs.yml"
    for name, option in options.items():
        if name not in defaults:
            if "default" in option:
                yield f"{name} has the default {option['default']!r} in meta/argument_specs.yml only"
            continue
        default = defaults[name]
        if option.get("required"):
            yield f"{name} is required and has a default"
        if "default" in option and not same(option["default"], default):
            yield f"{name}: the default is {default!r}, meta/argument_specs.yml says {option['default']!r}"
        if "default" not in option and not is_template(default):
            yield f"{name}: meta/argument_specs.yml does not give the default {default!r}"
        if not is_template(default) and default is not None:
            allowed = PYTHON_TYPES[option.get("type", "str")]
            if not isinstance(default, allowed) or (
                isinstance(default, bool) and bool not in allowed and object not in allowed
            ):
                yield f"{name}: {default!r} is not of type {option.get('type', 'str')}"
        if option.get("choices") and not is_template(default) and default not in option["choices"]:
            yield f"{name}: {default!r} is not one of its choices"


def undescribed(options: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Options without a description or a type, or with a measure whose unit is not named."""
    for name, option in options.items():
        path = f"{where}{name}"
        text = option.get("description", "")
        text = " ".join(text) if isinstance(text, list) else text
        if not text.rstrip().endswith("."):
            yield f"{path}: its description is not a sentence: {text!r}"
        if option.get("type") not in PYTHON_TYPES:
            yield f"{path}: its type is {option.get('type')!r}"
        if option.get("type") in {"int", "float"} and MEASURED.search(name) and not UNIT.search(text):
            yield f"{path}: its description names no unit"
        yield from undescribed(option.get("options") or {}, f"{path}.")


@pytest.fixture(params=ROLES, ids=lambda role: role.name)
def role(request: pytest.FixtureRequest) -> Path:
    """Each role in turn."""
    path: Path = request.param
    return path


def test_role_has_an_argument_specification(role: Path) -> None:
    assert ("main" in entry_points(role)) == (role.name not in WITHOUT_MAIN)
    assert entry_points(role), f"roles/{role.name}/meta/argument_specs.yml is missing"
    assert all(entry.get("short_description") for entry in entry_points(role).values())


def test_defaults_are_declared_as_they_are(role: Path) -> None:
    assert list(disagreements(declared(role), defaults(role))) == []


def test_every_option_is_described(role: Path) -> None:
    found = [
        f"{name}: {problem}"
        for name, entry in entry_points(role).items()
        for problem in undescribed(entry.get("options") or {})
    ]
    assert found == []


def test_variables_carry_the_name_of_their_role(role: Path) -> None:
    allowed = UNPREFIXED if role.name == "common" else set()
    prefixes = (f"{role.name}_", "cloud_") if role.name == "common" else (f"{role.name}_",)
    foreign = [name for name in defaults(role) if not name.startswith(prefixes)]
    assert [name for name in foreign if name not in allowed] == []


def test_no_two_roles_own_one_variable() -> None:
    owners: dict[str, list[str]] = {}
    for role in ROLES:
        for name in defaults(role):
            owners.setdefault(name, []).append(role.name)
    assert {name: roles for name, roles in owners.items() if len(roles) > 1} == {}


# The comparisons above must be able to fail.
@pytest.mark.parametrize(
    ("option", "defaults", "problem"),
    [
        ({"type": "int", "default": 3}, {"x": 3}, None),
        ({"type": "str"}, {"x": "{{ y }}"}, None),
        ({"type": "str", "default": "{{ a\n + b }}"}, {"x": "{{ a + b }}"}, None),
        ({"type": "int", "default": 3}, {"x": 4}, "x: the default is 4, meta/argument_specs.yml says 3"),
        ({"type": "int"}, {"x": 4}, "x: meta/argument_specs.yml does not give the default 4"),
        ({"type": "str", "default": 3}, {"x": 3}, "x: 3 is not of type str"),
        ({"type": "int", "default": True}, {"x": True}, "x: True is not of type int"),
        ({"type": "str", "required": True}, {"x": "{{ y }}"}, "x is required and has a default"),
        ({"type": "str", "default": "a"}, {}, "x has the default 'a' in meta/argument_specs.yml only"),
        ({"type": "str", "default": "c", "choices": ["a"]}, {"x": "c"}, "x: 'c' is not one of its choices"),
    ],
)
def test_disagreements_are_found(option: dict[str, Any], defaults: dict[str, Any], problem: str | None) -> None:
    assert list(disagreements({"x": option}, defaults)) == ([problem] if problem else [])


def test_undeclared_default_is_found() -> None:
    assert list(disagreements({}, {"x": 1})) == ["x has a default, but is not in meta/argument_specs.yml"]


def test_missing_unit_is_found() -> None:
    assert list(undescribed({"wait_timeout": {"type": "int", "description": "How long to wait."}})) == [
        "wait_timeout: its description names no unit"
    ]
    assert list(undescribed({"wait_timeout": {"type": "int", "description": "Seconds to wait."}})) == []
