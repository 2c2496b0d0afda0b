# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Load tables of nftables so that the host returns to the former ones by itself unless the new ones are confirmed.

Documented in library/firewall_tables.py. The state is a directory on the host: a copy of each confirmed file, which a
unit loads at boot, so that a reboot undoes what was not confirmed; and from before a change until it is confirmed or
undone, the file ``armed`` with its token, and the new copies.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.network.nft_table import live_table, nft
from ansible.module_utils.kilonova.network.rollback import RollbackError, locked, read
from ansible.module_utils.kilonova.system.atomic_file import replace

DIRECTORY = "/var/lib/kilonova/firewall"
TIMER = "kilonova-firewall-rollback"
ARGUMENT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent", "confirmed", "inspected"], "default": "present"},
    "files": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "path": {"type": "path", "required": True},
            "tables": {"type": "list", "elements": "str", "required": True},
            "device": {"type": "str"},
        },
    },
    "rollback_seconds": {"type": "int", "default": 60},
    "token": {"type": "str", "default": "", "no_log": False},
}
File = Mapping[str, Any]
# Between two tables that nft prints.
BORDER = "# next table"


def copy_of(file: File) -> str:
    """Return the path of the confirmed copy of a file."""
    return f"{DIRECTORY}/{os.path.basename(file['path'])}"


def tables_of(files: Iterable[File]) -> list[str]:
    """Return the tables of files."""
    return [table for file in files for table in file["tables"]]


def wanted_tables(module: AnsibleModule, files: Iterable[File]) -> dict[str, str]:
    """Return the tables that files define, as nft prints them once they are loaded.

    They are loaded into an empty network namespace, which ends with the command.
    """
    files = list(files)
    # nft lists what was committed before, so these are commands of their own.
    lines = ["set -e"]
    for file in files:
        lines += [f"ip link add {shlex.quote(file['device'])} type veth"] if file["device"] else []
        lines += [f"nft --file {shlex.quote(file['path'])}"]
    lines += [
        f"nft --stateless list table {table} 2>/dev/null || true; echo {shlex.quote(BORDER)}"
        for table in tables_of(files)
    ]
    printed = nft(module, "unshare", "--net", "sh", "-c", "\n".join(lines)).split(f"{BORDER}\n")
    return dict(zip(tables_of(files), printed, strict=False))


def status() -> dict[str, Any]:
    """Return the state of the last change."""
    armed, undone = read(f"{DIRECTORY}/armed"), read(f"{DIRECTORY}/undone")
    return {"token": (armed or undone or "").strip(), "armed": armed is not None, "undone": undone is not None}


def rollback_script(files: Iterable[File]) -> str:
    """Return the script that returns to the confirmed tables, or to none."""
    lines = []
    for file in files:
        copy = shlex.quote(copy_of(file))
        deletions = "; ".join(f"nft delete table {table}" for table in file["tables"])
        lines.append(f"{deletions}\nif [ -e {copy} ]; then nft --file {copy}; fi")
    undo = "\n".join(lines)
    return f"""#!/bin/sh
# Written by Kilonova (role firewall): returns to the confirmed rules, unless a run confirmed the new ones.
cd {DIRECTORY} || exit 1
exec 9>lock
flock 9
[ -e armed ] || exit 0
{undo}
mv -f armed undone
"""


def forget(*names: str) -> None:
    """Remove files of the state."""
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{DIRECTORY}/{name}")


def stop_timer(module: AnsibleModule) -> None:
    """Stop the timer of an earlier change; a rollback that already runs is left to finish."""
    module.run_command(["systemctl", "stop", f"{TIMER}-*.timer"])
    if os.path.isdir(DIRECTORY):
        with locked(DIRECTORY):
            pass


def arm(module: AnsibleModule, files: Iterable[File], token: str) -> None:
    """Write the rollback and start its timer."""
    os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
    forget("undone")
    for file in files:
        replace(f"{copy_of(file)}.new", read(file["path"]) or "", mode=0o600)
    replace(f"{DIRECTORY}/rollback", rollback_script(files), mode=0o700)
    replace(f"{DIRECTORY}/armed", token)
    os.sync()
    code, _, error = module.run_command([
        "systemd-run", "--quiet", f"--on-active={module.params['rollback_seconds']}", f"--unit={TIMER}-{token}",
        "--timer-property=AccuracySec=100ms", "--timer-property=RemainAfterElapse=no",
        "--description=Kilonova: return to the former firewall", "/bin/sh", f"{DIRECTORY}/rollback",
    ])  # fmt: skip
    if code:
        forget("armed")
        raise RollbackError(f"systemd-run could not arm the rollback timer, so nothing was changed: {error.strip()}")


def loadable(files: Iterable[File]) -> list[File]:
    """Return the files whose device, if any, the host has."""
    return [file for file in files if not file["device"] or os.path.exists(f"/sys/class/net/{file['device']}")]


def load(module: AnsibleModule, files: list[File]) -> None:
    """Load the files and arm the rollback."""
    token = secrets.token_hex(6)
    arm(module, files, token)
    for file in loadable(files):
        nft(module, "nft", "--file", file["path"])
    module.params["token"] = token


def remove(module: AnsibleModule, files: list[File], live: Mapping[str, str]) -> None:
    """Delete the tables and the copies."""
    for table in [table for table in live if live[table]]:
        nft(module, "nft", "delete", "table", *table.split())
    forget("armed", "undone", "rollback", *(os.path.basename(copy_of(file)) for file in files))


def converge(module: AnsibleModule) -> None:
    """Load the files, or delete the tables, if live tables or confirmed copies differ."""
    files, present = module.params["files"], module.params["state"] == "present"
    ready = shutil.which("nft") is not None and all(os.path.exists(file["path"]) for file in files if present)
    if not ready and not module.check_mode:
        missing = ", ".join(file["path"] for file in files)
        module.fail_json(msg=f"{missing} or the program nft (package nftables) does not exist on this host")
    if not module.check_mode and status()["armed"]:
        # An earlier run ended before it confirmed.
        stop_timer(module)
    # In a dry run before the first one, files and program come with the same run.
    tables = tables_of(files)
    live = {table: live_table(module, table) if ready else "" for table in tables}
    wanted = dict.fromkeys(tables, "")
    if present:
        wanted = wanted_tables(module, files) if ready else {table: f"table {table}\n" for table in tables}
        # Tables of a device come with it.
        there = tables_of(loadable(files)) if ready else tables
        wanted |= {table: live[table] for table in tables if table not in there}
    changes = [f"nftables: table {table}" for table in tables if live[table] != wanted[table]]
    if status()["armed"]:
        changes.append("an earlier change was not confirmed")
    if present:
        changes += [copy_of(file) for file in files if ready and read(copy_of(file)) != read(file["path"])]
    else:
        changes += [copy_of(file) for file in files if os.path.exists(copy_of(file))]
    if changes and not module.check_mode:
        if present:
            load(module, files)
        else:
            remove(module, files, live)
    module.exit_json(
        changed=bool(changes),
        changes=changes,
        token=module.params["token"],
        diff=[
            {"before": live[table], "after": wanted[table], "before_header": table, "after_header": table}
            for table in tables
            if live[table] != wanted[table]
        ],
    )


def confirm(module: AnsibleModule) -> None:
    """Make the loaded tables those of the next boot, and of the next rollback."""
    now = status()
    if not now["armed"] or now["token"] != module.params["token"]:
        module.fail_json(
            msg="There is no such change to confirm: it was undone, or another run took its place.", status=now
        )
    with locked(DIRECTORY):
        if not status()["armed"]:
            module.fail_json(msg="The change was undone while it was being confirmed.", status=status())
        for file in module.params["files"]:
            os.replace(f"{copy_of(file)}.new", copy_of(file))
        forget("armed")
        os.sync()
    module.run_command(["systemctl", "stop", f"{TIMER}-{now['token']}.timer"])
    module.exit_json(changed=True, status=status())


def run(module: AnsibleModule) -> None:
    """Run the module."""
    module.run_command_environ_update = {"LC_ALL": "C"}
    try:
        if module.params["state"] == "inspected":
            module.exit_json(changed=False, status=status())
        elif module.params["state"] == "confirmed":
            confirm(module)
        else:
            converge(module)
    except RollbackError as error:
        module.fail_json(msg=str(error))
