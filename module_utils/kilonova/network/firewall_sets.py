# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Keep the addresses in sets of a live nftables table and of the files that define it.

Documented in library/firewall_sets.py. The files are those of roles/firewall/templates/firewall.nft.j2, which writes a
set in the form that ``with_elements`` reads.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.network.nft_table import live_table, nft
from ansible.module_utils.kilonova.network.rollback import read
from ansible.module_utils.kilonova.system.atomic_file import replace

ARGUMENT_SPEC: dict[str, Any] = {
    "table": {"type": "str", "required": True},
    "sets": {"type": "dict", "required": True},
    "files": {"type": "list", "elements": "path", "required": True},
}
Sets = Mapping[str, Iterable[str]]


def with_elements(text: str, sets: Sets) -> str:
    """Return the text of a file with these elements in its sets."""
    for name, elements in sets.items():
        head, former = rf"    set {re.escape(name)} \{{\n        type \S+\n", r"(?:        elements = .*\n)?"
        line = f"        elements = {{ {', '.join(elements)} }}\n" if elements else ""
        text = re.sub(rf"^({head}){former}(?=    \}}$)", rf"\g<1>{line}", text, flags=re.MULTILINE)
    return text


def live_sets(module: AnsibleModule, table: str) -> dict[str, set[str]]:
    """Return the elements of the sets of a live table, nothing if there is no such table."""
    if shutil.which("nft") is None or not live_table(module, table):
        return {}
    listed = json.loads(nft(module, "nft", "--json", "list", "table", *table.split()))["nftables"]
    return {entry["set"]["name"]: {*map(str, entry["set"].get("elem", []))} for entry in listed if "set" in entry}


def transaction(table: str, sets: Sets) -> str:
    """Return the nft commands that give sets these elements."""
    lines = []
    for name, elements in sets.items():
        lines.append(f"flush set {table} {name}")
        if elements:
            lines.append(f"add element {table} {name} {{ {', '.join(elements)} }}")
    return "\n".join(lines)


def run(module: AnsibleModule) -> None:
    """Change what differs."""
    table, sets = module.params["table"], module.params["sets"]
    live = live_sets(module, table)
    different = {name: sets[name] for name in sets if name in live and live[name] != {*sets[name]}}
    changes = [f"nftables: set {name} of table {table}" for name in different]
    if different and not module.check_mode:
        nft(module, "nft", transaction(table, different))
    diff = []
    for path in module.params["files"]:
        before = read(path) or ""
        after = with_elements(before, sets)
        if before != after:
            changes.append(path)
            diff.append({"before": before, "after": after, "before_header": path, "after_header": path})
            if not module.check_mode:
                replace(path, after, mode=0o600)
    module.exit_json(changed=bool(changes), changes=changes, diff=diff)
