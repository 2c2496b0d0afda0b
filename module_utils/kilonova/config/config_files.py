# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Compare configuration files with what a host has, check their options, and install what differs.

Documented in library/config_files.py.
"""

from __future__ import annotations

import base64
import grp
import os
import pwd
import re
import shutil
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.config.masking import mask, mask_predecessors
from ansible.module_utils.kilonova.config.oslo_options import (
    OptionsUnavailable,
    check_files,
    describe,
    installed_namespaces,
)

ARGUMENT_SPEC: dict[str, Any] = {
    "files": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "dest": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["file", "directory", "absent"], "default": "file"},
            "src": {"type": "str"},
            "role": {"type": "str"},
            "content": {"type": "str", "no_log": True},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str"},
            "overrides": {"type": "dict", "no_log": True},
            "overrides_name": {"type": "str"},
            "options": {"type": "list", "elements": "str"},
            "encoded": {"type": "str", "no_log": True},
        },
    },
    "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "backup": {"type": "bool", "default": False},
}
DEFAULT_MODES = {"file": "0644", "directory": "0755", "absent": "0"}


@dataclass
class Entry:
    """One entry of O(files), with what the host has in its place."""

    dest: str
    state: str
    owner: str
    group: str
    mode: int
    text: bytes = b""
    options: list[str] = field(default_factory=list)
    present: str = "absent"  # file, directory, absent or other
    present_text: bytes | None = None  # of a file
    differences: list[str] = field(default_factory=list)  # of state, content, owner, group, mode

    @property
    def conflict(self) -> str:
        """Why this entry cannot take the place of what is there, which may hold somebody's data; "" if it can."""
        if self.state == "file" and self.present == "directory":
            return f"{self.dest} is a directory, not a file; remove it or choose another dest"
        if self.state == "directory" and self.present in ("file", "other"):
            return f"{self.dest} is not a directory; remove it or choose another dest"
        return ""


def decode(content: bytes) -> str:
    """Return a file's content as text for a diff."""
    return "(binary content)\n" if b"\0" in content else content.decode(errors="replace")


def parse_mode(text: str | None, dest: str, state: str) -> int:
    """Return octal permissions as a number. Raises ValueError with a message for the user."""
    text = text or DEFAULT_MODES[state]
    if not re.fullmatch(r"[0-7]{1,5}", text):
        raise ValueError(f'{dest}: mode {text!r} is not an octal number in quotes such as "0640"')
    return int(text, 8)


def read(given: dict[str, Any]) -> Entry:
    """Read an entry of O(files) and what the host has there. Raises ValueError for an entry that cannot be used."""
    dest, state = given["dest"].rstrip("/") or "/", given["state"]
    entry = Entry(
        dest,
        state,
        given["owner"],
        given["group"],
        parse_mode(given["mode"], dest, state),
        options=given["options"] or [],
    )
    if not dest.startswith("/") or dest == "/":
        raise ValueError(f"{given['dest']!r} is not an absolute path of a file or directory")
    if state == "file":
        if given["encoded"] is None:
            raise ValueError(f"{dest}: no content; config_files works through its action plugin (plugins/action)")
        entry.text = base64.b64decode(given["encoded"])
    if os.path.islink(dest):
        entry.present = "other"
    elif os.path.isdir(dest):
        entry.present = "directory"
    elif os.path.isfile(dest):
        entry.present = "file"
        with open(dest, "rb") as stream:
            entry.present_text = stream.read()
    elif os.path.lexists(dest):
        entry.present = "other"
    return entry


def account_id(name: str, group: bool) -> int | None:
    """Return the number of a user or group, None if there is none of that name."""
    if name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid if group else pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def account_name(number: int, group: bool) -> str:
    """Return the name of a user or group, or the number where it has none."""
    try:
        return grp.getgrgid(number).gr_name if group else pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def differences(entry: Entry) -> list[str]:
    """Return what must change: state, or some of content, owner, group and mode."""
    if entry.state == "absent":
        return [] if entry.present == "absent" else ["state"]
    if entry.present != entry.state:
        return ["state"]
    status = os.stat(entry.dest)
    differs = {
        "content": entry.state == "file" and entry.present_text != entry.text,
        "owner": status.st_uid != account_id(entry.owner, group=False),
        "group": status.st_gid != account_id(entry.group, group=True),
        "mode": status.st_mode & 0o7777 != entry.mode,
    }
    return [name for name, different in differs.items() if different]


def obstacles(entries: list[Entry]) -> list[str]:
    """Return what would stop the installation half-way, as messages for the user."""
    found: list[str] = []
    planned = {entry.dest for entry in entries if entry.state == "directory"}
    for entry in (entry for entry in entries if entry.state != "absent"):
        for name, group in ((entry.owner, False), (entry.group, True)):
            if account_id(name, group) is None:
                found.append(
                    f"{entry.dest}: the {'group' if group else 'user'} {name!r} does not exist on this host; "
                    "install the package that creates it first"
                )
        if entry.conflict:
            found.append(entry.conflict)
        parent = os.path.dirname(entry.dest)
        if entry.state == "file" and not os.path.isdir(parent) and parent not in planned:
            found.append(
                f"{entry.dest}: the directory {parent} does not exist; install the package that owns it, or list it "
                "before the file with state: directory"
            )
    return found


def diff_entry(entry: Entry, secrets: list[str]) -> dict[str, str]:
    """Return one file's part of the diff: attributes that change, then the content."""
    before, after = changed_attributes(entry)
    if "content" in entry.differences or entry.present != entry.state:
        new = decode(entry.text)
        old = mask(mask_predecessors(decode(entry.present_text or b""), new, secrets), secrets)
        new = mask(new, secrets)
        if old == new and entry.present_text is not None and entry.state == "file":
            before, after = before + "(hidden values: old)\n", after + "(hidden values: new)\n"
        before, after = before + old, after + new
    return {
        "before_header": entry.dest,
        "after_header": entry.dest,
        "before": before,
        "after": after,
    }


def changed_attributes(entry: Entry) -> tuple[str, str]:
    """Return the attributes that change, as lines before and after."""
    if entry.present != entry.state:
        after = f"{entry.state}\n"
        if entry.state != "absent":
            after = f"{entry.state}, {entry.owner}:{entry.group}, mode {entry.mode:04o}\n"
        return f"{entry.present}\n", after
    status = os.stat(entry.dest)
    lines: tuple[list[str], list[str]] = ([], [])
    for name, old, new in (
        ("owner", account_name(status.st_uid, group=False), entry.owner),
        ("group", account_name(status.st_gid, group=True), entry.group),
        ("mode", f"{status.st_mode & 0o7777:04o}", f"{entry.mode:04o}"),
    ):
        if name in entry.differences:
            lines[0].append(f"{name}: {old}\n")
            lines[1].append(f"{name}: {new}\n")
    return "".join(lines[0]), "".join(lines[1])


def check_options(module: AnsibleModule, entries: list[Entry]) -> None:
    """Fail if a file that changes has an option or value that the installed services do not accept."""
    files = [entry for entry in entries if entry.options and entry.state == "file"]
    if module.check_mode and files:
        known = installed_namespaces()
        for entry in list(files):
            missing = [name for name in entry.options if name not in known]
            if missing:
                module.warn(
                    f"{entry.dest} was not checked: nothing on this host provides the options {', '.join(missing)} yet"
                )
                files.remove(entry)
    if not files:
        return
    try:
        problems = check_files([(entry.dest, decode(entry.text), entry.options) for entry in files])
    except OptionsUnavailable as error:
        module.fail_json(msg=f"Nothing was written: the files cannot be checked. {error}")
    if problems:
        secrets = module.params["secrets"]
        masked = [{key: mask(str(value), secrets) for key, value in problem.items()} for problem in problems]
        text = "\n".join(f"- {describe(problem)}" for problem in masked)
        module.fail_json(
            msg=f"Nothing was written: the services on this host do not accept {len(masked)} of the options.\n{text}",
            problems=masked,
        )


def install(module: AnsibleModule, entry: Entry) -> str:
    """Apply one entry and return the path of the backup, if one was made."""
    backup = ""
    if entry.state == "absent":
        if entry.present == "directory":
            shutil.rmtree(entry.dest)
        else:
            os.unlink(entry.dest)
        return backup
    if entry.state == "directory":
        if entry.present == "absent":
            make_directory(entry.dest)
    else:
        if entry.present == "file":
            # atomic_move copies the old permissions to the new file: they must not be wider than the wanted ones.
            set_attributes(module, entry)
        if "content" in entry.differences or "state" in entry.differences:
            if module.params["backup"] and entry.present == "file":
                backup = module.backup_local(entry.dest)
            write(module, entry)
    set_attributes(module, entry)
    return backup


def make_directory(path: str) -> None:
    """Create a directory for its owner alone, and missing parents with mode 0755."""
    umask = os.umask(0o022)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    finally:
        os.umask(umask)
    os.mkdir(path)


def write(module: AnsibleModule, entry: Entry) -> None:
    """Replace the file in one step; nobody can read it before its owner and mode are set."""
    temporary = os.path.join(module.tmpdir, f"config_files-{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(entry.text)
    if entry.present == "other":
        os.unlink(entry.dest)
    module.atomic_move(temporary, entry.dest)


def set_attributes(module: AnsibleModule, entry: Entry) -> None:
    """Set owner, group and mode."""
    module.set_fs_attributes_if_different(
        {
            "path": entry.dest,
            "owner": entry.owner,
            "group": entry.group,
            "mode": f"{entry.mode:04o}",
            "secontext": [],
            "attributes": None,
        },
        False,
    )


def run(module: AnsibleModule) -> None:
    """Install the files that differ, or say which do."""
    # Files that atomic_move creates are for root alone until their owner and mode are set.
    umask = os.umask(0o077)
    try:
        converge(module)
    finally:
        os.umask(umask)


def converge(module: AnsibleModule) -> None:
    """Check all entries before the first is installed."""
    try:
        entries = [read(given) for given in module.params["files"]]
    except (ValueError, OSError) as error:
        module.fail_json(msg=f"config_files: {error}")
    for entry in entries:
        entry.differences = differences(entry)
    changing = [entry for entry in entries if entry.differences]
    stops = obstacles(changing)
    if stops and not module.check_mode:
        module.fail_json(msg="Nothing was written:\n" + "\n".join(f"- {stop}" for stop in stops))
    check_options(module, changing)

    result: dict[str, Any] = {
        "changed": bool(changing),
        "changed_files": [entry.dest for entry in changing],
        "written_files": [entry.dest for entry in changing if {"content", "state"}.intersection(entry.differences)],
    }
    if module._diff:
        result["diff"] = [diff_entry(entry, module.params["secrets"]) for entry in changing]
    if module.check_mode:
        result["needs_you"] = [entry.conflict for entry in changing if entry.conflict]
    else:
        backups = {entry.dest: install(module, entry) for entry in changing}
        if module.params["backup"]:
            result["backup_files"] = {dest: path for dest, path in backups.items() if path}
    module.exit_json(**result)
