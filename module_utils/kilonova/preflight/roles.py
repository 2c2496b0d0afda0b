# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What the roles declare: options of their argument specs, and names of their variables."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

OWN_PREFIXES = ("cloud_", "flat_", "fixed_", "network_size", "public_interface")
# A variable in a role's defaults or vars.
NAME = re.compile(r"^([a-z]\w*):", re.MULTILINE)
# The C loader is five times as fast, where PyYAML has it.
FastLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Known:
    """Options by variable, all names, and the prefixes of names."""

    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    prefixes: tuple[str, ...] = ()

    @property
    def secrets(self) -> set[str]:
        """Variables whose values are never shown."""
        return {name for name, option in self.options.items() if option.get("no_log")}


def load_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, with Ansible's tags read as plain text."""

    class Loader(FastLoader):  # type: ignore[misc, valid-type]
        """Accepts !vault and !unsafe."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: getattr(node, "value", None))
    value = yaml.load(path.read_text(encoding="utf-8"), Loader) if path.is_file() else {}  # noqa: S506
    return value if isinstance(value, dict) else {}


def read_roles(directory: Path) -> Known:
    """Read the argument specs of all roles, and the names in their defaults and vars."""
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
                # Names only, without parsing: this runs once for each host.
                known.names.update(NAME.findall(path.read_text(encoding="utf-8")))
    known.names.update(known.options)
    known.prefixes = tuple(sorted({*OWN_PREFIXES, *(f"{role}_" for role in roles)}))
    return known
