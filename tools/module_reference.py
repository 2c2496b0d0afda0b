# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Write docs/reference/modules and docs/reference/filters from what ansible-doc says of them.

With --check, write nothing and exit 1 when a page is outdated.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from tools.role_reference import (
    HEADER,
    PROJECT,
    check_only,
    index_page,
    markdown,
    paragraphs,
    rows,
    sentences,
    type_of,
    update,
)

MODULES = PROJECT / "docs" / "reference" / "modules"
FILTERS = PROJECT / "docs" / "reference" / "filters"


def ansible_doc(kind: str, names: list[str]) -> dict[str, Any]:
    """Return the documentation of the project's plugins of one kind, with doc fragments resolved."""
    command = [sys.executable, "-m", "ansible", "doc", "--type", kind, "--json", *names]
    environment = os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")}
    done = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    return dict(json.loads(done.stdout))


def module_names() -> list[str]:
    """Return the names of all modules."""
    return sorted(path.stem for path in (PROJECT / "library").glob("*.py"))


def filter_names() -> list[str]:
    """Return the names of all documented filters: a file NAME.yml beside the code, or DOCUMENTATION in NAME.py."""
    directory = PROJECT / "plugins" / "filter"
    in_code = {path.stem for path in directory.glob("*.py") if "\nDOCUMENTATION = " in path.read_text()}
    return sorted(in_code | {path.stem for path in directory.glob("*.yml")})


def options_table(documented: Mapping[str, Any]) -> list[str]:
    """Return the table of options and suboptions."""
    table = rows(documented.get("options") or {}, {})
    return ["", "| Option | Type | Default | Meaning |", "|---|---|---|---|", *table] if table else ["", "No options."]


def returned_rows(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return table rows of return values, each followed by what it contains."""
    found = []
    for name, value in values.items():
        when = sentences(value.get("returned"))
        meaning = sentences(value.get("description"))
        found.append(f"| `{prefix}{name}` | {type_of(value)} | {when} | {meaning} |")
        dots = "[]." if value.get("type") == "list" else "."
        found += returned_rows(value.get("contains") or {}, f"{prefix}{name}{dots}")
    return found


def module_page(name: str, documentation: Mapping[str, Any]) -> str:
    """Return the page of one module."""
    documented = documentation["doc"]
    lines = [HEADER.format(source=f"library/{name}.py"), "", f"# Module `{name}`"]
    lines += ["", f"{markdown(documented['short_description'])}."]
    lines += [line for paragraph in paragraphs(documented) for line in ("", paragraph)]
    lines += options_table(documented)
    points = [
        f"{title}: {mode['support']}. {sentences(mode.get('description'))}".strip()
        for title, mode in (
            ("Check mode", documented.get("attributes", {}).get("check_mode")),
            ("Diff mode", documented.get("attributes", {}).get("diff_mode")),
        )
        if mode
    ]
    points += [f"Requires {sentences(text)}" for text in documented.get("requirements") or []]
    points += [sentences(text) for text in documented.get("notes") or []]
    lines += ["", *[f"- {text}" for text in points]] if points else []
    lines += ["", "```yaml", documentation["examples"].strip(), "```"] if documentation.get("examples") else []
    table = returned_rows(documentation.get("return") or {})
    lines += ["", "| Returns | Type | When | Meaning |", "|---|---|---|---|", *table] if table else []
    return "\n".join([*lines, ""])


def module_pages() -> dict[str, str]:
    """Return all modules' pages by file name, the index included."""
    documentation = ansible_doc("module", module_names())
    found = {f"{name}.md": module_page(name, documentation[name]) for name in module_names()}
    index = [
        f"| [{name}]({name}.md) | {markdown(documentation[name]['doc']['short_description'])} |"
        for name in module_names()
    ]
    introduction = "Modules run on the hosts. `ansible-doc -t module NAME` in the checkout shows the same."
    found["README.md"] = index_page("Modules", introduction, "Module", index)
    return found


def filter_section(name: str, documentation: Mapping[str, Any]) -> list[str]:
    """Return the section of one filter."""
    documented = documentation["doc"]
    lines = ["", f"## `{name}`", "", f"{markdown(documented['short_description'])}."]
    lines += [line for paragraph in paragraphs(documented) for line in ("", paragraph)]
    lines += options_table(documented)
    lines += ["", "```yaml", documentation["examples"].strip(), "```"] if documentation.get("examples") else []
    value = (documentation.get("return") or {}).get("_value")
    return [*lines, "", f"Returns {type_of(value)}: {sentences(value.get('description'))}"] if value else lines


def filter_pages() -> dict[str, str]:
    """Return the one page of all filters."""
    names = filter_names()
    documentation = ansible_doc("filter", names)
    lines = [HEADER.format(source="plugins/filter"), "", "# Filters", ""]
    lines += ["Filters run on the control computer. `ansible-doc -t filter NAME` in the checkout shows the same."]
    lines += [line for name in names for line in filter_section(name, documentation[name])]
    return {"README.md": "\n".join([*lines, ""])}


def main() -> int:
    """Write or check the pages. Return 1 if --check finds an outdated one."""
    check = check_only(__doc__)
    differing = [update(module_pages(), MODULES, check), update(filter_pages(), FILTERS, check)]
    return int(any(differing) and check)


if __name__ == "__main__":
    sys.exit(main())
