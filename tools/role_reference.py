# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Write docs/roles/*.md, the reference of all roles' variables, from their meta/argument_specs.yml.

With --check, write nothing and exit 1 where a page is not up to date.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parent.parent
PAGES = PROJECT / "docs" / "roles"
HEADER = "<!-- Written by `make reference` from roles/{role}/meta/argument_specs.yml. Change that file. -->"


def markdown(text: str) -> str:
    """Text of an argument specification as one line of Markdown: C(x), O(x) and the like become `x`."""
    text = re.sub(r"\b[BI]\(([^()]*)\)", r"*\1*", text)
    text = re.sub(r"\b(?:C|O|V|RV|E|M|P)\(((?:[^()]|\([^()]*\))*)\)", r"`\1`", text)
    text = re.sub(r"\bU\(([^()]*)\)", r"<\1>", text)
    text = re.sub(r"\bL\(([^(),]*), *([^()]*)\)", r"[\1](\2)", text)
    return " ".join(text.split()).replace("|", "\\|")


def sentences(value: str | list[str] | None) -> str:
    """A description, which may be a list of paragraphs."""
    return markdown(" ".join(value) if isinstance(value, list) else value or "")


def code(value: Any) -> str:
    """A value as YAML has it, in one line, as code."""
    text = value if isinstance(value, str) else ""
    if not text.strip():
        text = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    text = " ".join(text.replace("\n...\n", "").split())
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}".replace("|", "\\|")


def type_of(option: Mapping[str, Any]) -> str:
    """Type of an option: "list of str" and so on."""
    kind = str(option.get("type", "str"))
    return f"{kind} of {option['elements']}" if option.get("elements") else kind


def default_of(name: str, option: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """What holds when the variable is not set."""
    if option.get("required"):
        return "required" if not option.get("no_log") else "generated"
    if "default" in option or name in defaults:
        return code(option.get("default", defaults.get(name)))
    return ""


def rows(options: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Table rows of options and, below each, its suboptions."""
    found = []
    for name, option in options.items():
        meaning = sentences(option.get("description"))
        if option.get("choices"):
            meaning += f" One of {', '.join(code(choice) for choice in option['choices'])}."
        default = default_of(name, option, defaults)
        found.append(f"| `{prefix}{name}` | {type_of(option)} | {default} | {meaning} |")
        dots = "[]." if option.get("elements") == "dict" else "."
        found += rows(option.get("options") or {}, {}, f"{prefix}{name}{dots}")
    return found


def page(role: str, specification: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """The page of one role."""
    lines = [HEADER.format(role=role), "", f"# Role `{role}`"]
    for name, entry in specification.items():
        if name != "main":
            lines += ["", f"## Entry point `{name}`"]
        lines += ["", f"{markdown(entry['short_description'])}."]
        description = entry.get("description") or []
        for paragraph in [description] if isinstance(description, str) else description:
            lines += ["", sentences(paragraph)]
        table = rows(entry.get("options") or {}, defaults)
        heading = ["| Variable | Type | Default | Meaning |", "|---|---|---|---|"]
        lines += ["", *heading, *table] if table else ["", "No variables."]
    return "\n".join([*lines, ""])


def load(path: Path) -> dict[str, Any]:
    """A YAML file's content, nothing where the file is absent."""
    return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}


def pages(roles: Path) -> dict[str, str]:
    """All pages by file name, the index included."""
    found = {}
    index = []
    for role in sorted(path.parent.parent for path in roles.glob("*/meta/argument_specs.yml")):
        specification = load(role / "meta" / "argument_specs.yml").get("argument_specs") or {}
        found[f"{role.name}.md"] = page(role.name, specification, load(role / "defaults" / "main.yml"))
        summary = markdown(specification.get("main", {}).get("short_description", ""))
        index.append(f"| [{role.name}]({role.name}.md) | {summary} |")
    found["README.md"] = "\n".join(
        [
            "<!-- Written by `make reference`. -->",
            "",
            "# Roles and their variables",
            "",
            "Set a variable in the inventory: for all hosts in `group_vars/all/`, for one in `host_vars/`.",
            "",
            "| Role | What it does |",
            "|---|---|",
            *index,
            "",
        ]
    )
    return found


def outdated(wanted: Mapping[str, str], directory: Path) -> list[str]:
    """Names of pages that are missing, differ, or belong to no role."""
    present = {path.name: path.read_text() for path in directory.glob("*.md")}
    return sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))


def main() -> int:
    """Write or check the pages. Returns 1 where --check finds one outdated."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, only say which pages are not up to date")
    check = parser.parse_args().check
    wanted = pages(PROJECT / "roles")
    differing = outdated(wanted, PAGES)
    PAGES.mkdir(parents=True, exist_ok=True)
    for name in [] if check else differing:
        if name in wanted:
            (PAGES / name).write_text(wanted[name])
        else:
            (PAGES / name).unlink()
    for name in differing:
        print(f"docs/roles/{name} {'is not up to date: run make reference' if check else 'written'}")
    return int(check and bool(differing))


if __name__ == "__main__":
    sys.exit(main())
