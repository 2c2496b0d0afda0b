# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the names, types and secrets among the variables of a host, against the roles' argument specs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.kilonova.preflight.host import message

OWN_PREFIXES = ("cloud_", "flat_", "fixed_", "network_size", "public_interface")
# Names that only look like ours: Ansible's own.
FOREIGN = re.compile(
    r"^(ansible_|inventory_|group_names$|groups$|hostvars$|omit$|play_hosts$|playbook_dir$|role_|environment$)"
)
WORDS = {
    "str": "text",
    "int": "a whole number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
    "float": "a number",
}
EXAMPLES = {
    "int": "a number such as 1",
    "bool": "true or false",
    "list": "a list such as [a, b]",
    "dict": "a mapping such as {a: b}",
}
SHORTEST_SECRET = 8
# A name in a role's own file of variables.
NAME = re.compile(r"^([a-z]\w*):", re.MULTILINE)
# Five times as fast, where PyYAML has it.
FastLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Known:
    """What the roles declare."""

    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    prefixes: tuple[str, ...] = ()

    @property
    def secrets(self) -> set[str]:
        """Variables whose values are never shown."""
        return {name for name, option in self.options.items() if option.get("no_log")}


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; tags of Ansible's own are read as the text behind them."""

    class Loader(FastLoader):  # type: ignore[misc, valid-type]
        """Knows !vault and !unsafe."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: getattr(node, "value", None))
    value = yaml.load(path.read_text(encoding="utf-8"), Loader) if path.is_file() else {}  # noqa: S506
    return value if isinstance(value, dict) else {}


def read_roles(directory: Path) -> Known:
    """Options of every role's argument specs, and names in its defaults and vars."""
    known = Known()
    roles = []
    for role in sorted(path for path in directory.iterdir() if path.is_dir()):
        specs = load_yaml(role / "meta" / "argument_specs.yml").get("argument_specs", {})
        if specs:
            roles.append(role.name)
        for entry in specs.values():
            known.options.update((entry or {}).get("options") or {})
        for kind in ("defaults", "vars"):
            for path in sorted((role / kind).glob("**/*.yml")):
                # Only the names, which is ten times as fast: each host's check reads all roles.
                known.names.update(NAME.findall(path.read_text(encoding="utf-8")))
    known.names.update(known.options)
    known.prefixes = tuple(sorted({*OWN_PREFIXES, *(f"{role}_" for role in roles)}))
    return known


def check_names(names: Iterable[str], known: Known) -> list[str]:
    """Variables that look like ours and are not."""
    found = []
    for name in sorted(names):
        if name in known.names or FOREIGN.match(name) or not name.startswith(known.prefixes):
            continue
        close = difflib.get_close_matches(name, sorted(known.names), n=1, cutoff=0.6)
        instead = f"Did you mean {close[0]}?" if close else "See docs/reference/roles for the names there are."
        found.append(
            f"{name}: no role knows a variable of this name, so setting it does nothing. {instead} Rename it if it is "
            "your own."
        )
    return found


def note_names(names: Iterable[str], known: Known) -> list[str]:
    """Variables without one of our prefixes that are nearly one of ours."""
    found = []
    for name in sorted(names):
        if name in known.names or FOREIGN.match(name) or name.startswith(known.prefixes):
            continue
        close = difflib.get_close_matches(name, sorted(known.options), n=1, cutoff=0.88)
        if close:
            found.append(f"{name} is not a variable of ours. Did you mean {close[0]}?")
    return found


def kind_of(value: object) -> str:
    """What a value is, in words."""
    if value is None:
        return "empty"
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float"), (str, "str"), (dict, "dict"), (list, "list")):
        if isinstance(value, kind):
            return WORDS[name]
    return type(value).__name__


def check_type(name: str, value: object, option: Mapping[str, Any]) -> list[str]:
    """One value against its option."""
    wanted = str(option.get("type", "str"))
    shown = "(hidden)" if option.get("no_log") else value
    instead = f"Write {EXAMPLES.get(wanted, 'a text')}"
    if option.get("choices"):
        instead = f"Write one of: {', '.join(str(choice) for choice in option['choices'])}"
    why = f"this must be {WORDS.get(wanted, wanted)} and is {kind_of(value)}"
    if value is None:
        return [said(name, shown, why, f"{instead}, or remove the line to have the default")]
    if wanted == "raw":
        return []
    # Ansible would make a text of a list, and a list of a text with commas.
    if isinstance(value, (list, tuple)) != (wanted == "list") or isinstance(value, dict) != (wanted == "dict"):
        return [said(name, shown, why, instead)]
    spec = {
        key: option[key] for key in ("type", "choices", "elements", "options", "required_together") if key in option
    }
    result = ArgumentSpecValidator({name: spec}).validate({name: value})
    if not result.error_messages:
        return []
    if not option.get("choices") and isinstance(value, (str, int, float, bool)):
        return [said(name, shown, why, instead)]
    if option.get("choices") and isinstance(value, (str, int, float, bool)):
        return [said(name, shown, "this is not one of the values that it can have", instead)]
    details = "(hidden)" if option.get("no_log") else "; ".join(result.error_messages)
    return [said(name, shown, f"an element does not fit ({details})", "See docs/reference/roles for its form")]


def said(name: str, value: object, why: str, instead: str) -> str:
    """The message, a hidden value without quotes."""
    return message(name, value, why, instead).replace("'(hidden)'", "(hidden)")


def check_types(values: Mapping[str, object], known: Known) -> list[str]:
    """Every value that the inventory sets against the option it is for."""
    return [
        text
        for name in sorted(values)
        if name in known.options
        for text in check_type(name, values[name], known.options[name])
    ]


def check_secret(name: str, value: object) -> list[str]:
    """A secret as somebody wrote it; it is never shown."""
    if not isinstance(value, str):
        return []
    instead = "Write a long random text, or remove the line to have one generated"
    if not value:
        return [said(name, "(hidden)", "an empty secret protects nothing", instead)]
    bad = [char for char in value if not char.isprintable()]
    if bad:
        what = "a line break" if set(bad) & {"\n", "\r"} else f"the unprintable character U+{ord(bad[0]):04X}"
        return [
            said(
                name,
                "(hidden)",
                f"it contains {what}, which no configuration file can hold",
                "Write it with printable characters only",
            )
        ]
    return []


def note_secret(name: str, value: object) -> list[str]:
    """A secret that works and is easy to guess."""
    if isinstance(value, str) and 0 < len(value) < SHORTEST_SECRET and value.isprintable():
        return [f"{name} = (hidden): it has fewer than {SHORTEST_SECRET} characters and is easily guessed."]
    return []
