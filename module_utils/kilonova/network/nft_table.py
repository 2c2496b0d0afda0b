# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Keep one table of nftables as its file says.

Documented in library/nft_table.py.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule

ARGUMENT_SPEC: dict[str, Any] = {
    "family": {"type": "str", "choices": ["ip", "ip6", "inet", "arp", "bridge", "netdev"], "default": "inet"},
    "name": {"type": "str", "required": True},
    "file": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


# Loads a file and prints a table. nft lists what was committed before, so these are two commands.
LOAD_AND_LIST = 'nft --file "$1" && nft --stateless list table "$2" "$3"'


def nft(module: AnsibleModule, *command: str) -> str:
    """Return the output of a command of nft."""
    code, output, error = module.run_command(list(command))
    if code != 0:
        module.fail_json(msg=f"'{' '.join(command)}' failed: {error.strip() or output.strip()}")
    return str(output)


def live_table(module: AnsibleModule, table: str) -> str:
    """Return a table as nft prints it, "" if there is none."""
    present = nft(module, "nft", "list", "tables").splitlines()
    return nft(module, "nft", "--stateless", "list", "table", *table.split()) if f"table {table}" in present else ""


def wanted_table(module: AnsibleModule, table: str, file: str) -> str:
    """Return the table that a file defines, as nft prints it once it is loaded.

    It is loaded into an empty network namespace, which ends with the command.
    """
    return nft(module, "unshare", "--net", "sh", "-c", LOAD_AND_LIST, "sh", file, *table.split())


def run(module: AnsibleModule) -> None:
    """Load the file, or delete the table, if the live table differs."""
    params = module.params
    table, file = f"{params['family']} {params['name']}", params["file"]
    present = params["state"] == "present"
    ready = shutil.which("nft") is not None and (os.path.exists(file) or not present)
    if not ready and not module.check_mode:
        module.fail_json(msg=f"{file} or the program nft (package nftables) does not exist on this host")
    # In a dry run before the first one, file and program come with the same run.
    before = live_table(module, table) if ready else ""
    after = (wanted_table(module, table, file) if ready else f"{file}\n") if present else ""
    changed = before != after
    if changed and not module.check_mode:
        nft(module, *(["nft", "--file", file] if present else ["nft", "delete", "table", *table.split()]))
    module.exit_json(
        changed=changed,
        changes=[f"nftables: table {table}"] if changed else [],
        diff={"before": before, "after": after, "before_header": table, "after_header": table},
    )
