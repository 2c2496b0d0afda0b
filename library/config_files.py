#!/usr/bin/python3
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: config_files
short_description: Render and install all configuration files of a service in one call
version_added: "0.1.0"
description:
  - Renders each file from a template on the computer that runs Ansible (action plugin of the same name), merges INI
    overrides into it, and installs all files with one module call on the host.
  - A file whose C(options) name oslo.config namespaces is checked on the host, before anything is written, against
    the options that the installed services register. Unknown sections and options, values of the wrong type and
    deprecated options are errors.
  - Either all files of a call are installed or, when one fails its check, none.
  - Templates are searched as M(ansible.builtin.template) does, then in the project's C(templates/) directory, which
    C({% include %}) and C({% import %}) find as well. C(trim_blocks) is on, undefined variables are errors, and the
    file ends with a newline.
options:
  files:
    description: The files and directories, in the order in which they are installed.
    type: list
    elements: dict
    required: true
    suboptions:
      dest:
        description: Absolute path on the host. A symbolic link there is replaced by the file.
        type: path
        required: true
      state:
        description:
          - V(file) installs a file, V(directory) a directory (missing parents are made with mode 0755), V(absent)
            removes a file, or a directory with all it contains.
        type: str
        choices: [file, directory, absent]
        default: file
      src:
        description: Template. Exactly one of O(files[].src) and O(files[].content) is needed for a file.
        type: str
      role:
        description: Name of the role whose template O(files[].src) is, where another role calls the module.
        type: str
      content:
        description: The text itself instead of a template.
        type: str
      owner:
        description: User name or number.
        type: str
        default: root
      group:
        description: Group name or number.
        type: str
        default: root
      mode:
        description: Permissions as a quoted octal number. The default is 0644 for a file and 0755 for a directory.
        type: str
      overrides:
        description:
          - >-
            INI options merged into the rendered text, as {section: {option: value}}; comments and order stay.
          - Null removes an option, a list makes a repeated option, booleans become true or false.
        type: dict
      overrides_name:
        description: Name of the variable that holds O(files[].overrides), for error messages.
        type: str
      options:
        description: >-
          Namespaces of oslo.config options (entry points C(oslo.config.opts)) that this file may use. Without it the
          file is not checked.
        type: list
        elements: str
      encoded:
        description: Set by the action plugin, the finished text in base64.
        type: str
  secrets:
    description:
      - Secret values, masked in the diff, in messages and in the result, also where a file contains them quoted for
        a URL or escaped. Old secrets in the diff are recognised by the name of their option, by their place in a
        URL, and by the new secret that takes their place.
    type: list
    elements: str
    default: []
  backup:
    description: Keep the previous version of a changed file beside it, with a time stamp in its name.
    type: bool
    default: false
attributes:
  check_mode:
    description: Predicts changes, also where the user, group, directory or package does not exist yet.
    support: full
  diff_mode:
    description: One entry for each changed file, with the secrets masked.
    support: full
notes:
  - The check imports the installed services' option modules in a child process, about 2 to 3 seconds in each call
    that changes a checked file.
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Configure Nova
  config_files:
    files:
      - dest: /etc/nova/nova.conf
        src: nova.conf.j2
        group: nova
        mode: "0640"
        overrides: "{{ nova_conf_overrides }}"
        overrides_name: nova_conf_overrides
        options: [nova.conf, oslo.log, oslo.messaging, keystonemiddleware.auth_token]
      - dest: /etc/default/nova-consoleproxy
        content: |
          NOVA_CONSOLE_PROXY_TYPE=novnc
      - dest: /etc/nova/policy.d
        state: directory
        group: nova
        mode: "0750"
    secrets: "{{ secrets_values }}"
"""

RETURN = r"""
changed_files:
  description: The paths that were changed, created or removed, in the order of O(files).
  returned: always
  type: list
  elements: str
  sample: [/etc/nova/nova.conf]
written_files:
  description:
    - Those of RV(changed_files) whose content was written, or which were created or removed, not merely given another
      owner or mode. It is these that a daemon has to read again.
  returned: always
  type: list
  elements: str
ansible_facts:
  description: What carries through a dry run, for tasks that act on changed files.
  returned: in check mode
  type: dict
  contains:
    config_files_pending:
      description: The files that this and the earlier calls for the host would have written.
      type: list
      elements: str
backup_files:
  description: "The backups, as {path of the file: path of the backup}."
  returned: when O(backup) is true
  type: dict
problems:
  description: What the check found, when it failed.
  returned: when a file fails its check
  type: list
  elements: dict
  contains:
    file: {description: Path of the file., type: str}
    section: {description: Section of the option., type: str}
    option: {description: Name of the option., type: str}
    value: {description: The value in the file; masked where the option is secret., type: str}
    why: {description: What is wrong., type: str}
    suggestion: {description: What to do instead., type: str}
"""

import base64
import grp
import os
import pwd
import re
import shutil
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.config.oslo_options import (
    MASK,
    OptionsUnavailable,
    check_files,
    describe,
    installed_namespaces,
)

DEFAULT_MODES = {"file": "0644", "directory": "0755", "absent": "0"}
# A secret from before a change is in no list: in the diff it is recognised by its option's name or its URL.
_SECRET_OPTION = re.compile(
    r"""^(\s*["']?[\w.-]*(?:password|passwd|secret|passphrase|token|_key)["']?[ \t]*[=:][ \t]*)(?=\S).*$""",
    re.IGNORECASE | re.MULTILINE,
)
_PRIVATE_KEY = re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----\n).*?(\n-----END )", re.DOTALL)
_URL_PASSWORD = re.compile(r"(://[^\s:/@]*:)[^\s]*(@[\w.\[\]:-]+)")


@dataclass
class Wanted:
    """One entry of O(files) with what was found on the host."""

    dest: str
    state: str
    owner: str
    group: str
    mode: int
    text: bytes = b""
    options: list[str] = field(default_factory=list)
    before: bytes | None = None  # the present content of a file
    kind: str = "absent"  # what is there: file, directory, absent, other
    differences: list[str] = field(default_factory=list)  # names of what must change


def mask(text: str, secrets: list[str]) -> str:
    """The text without secrets: the given values (longest first), and values whose option's name tells."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _PRIVATE_KEY.sub(rf"\1{MASK}\2", text)
    text = _URL_PASSWORD.sub(rf"\1{MASK}\2", text)
    return _SECRET_OPTION.sub(rf"\1{MASK}", text)


def mask_predecessors(text: str, new: str, secrets: list[str]) -> str:
    """The old text without the secrets that stood where the new text has one: in lines that begin and end alike."""
    places: set[tuple[str, str]] = set()
    for line in new.splitlines():
        for secret in (secret for secret in secrets if secret in line):
            start, end = line.split(secret, 1)[0], line.rsplit(secret, 1)[1]
            if start.strip():
                places.add((start, end))
    lines = text.splitlines(keepends=True)
    for index, line in enumerate(lines):
        bare = line.rstrip("\n")
        for start, end in places:
            if bare.startswith(start) and bare.endswith(end) and len(bare) > len(start) + len(end):
                lines[index] = line.replace(bare, f"{start}{MASK}{end}")
    return "".join(lines)


def decode(content: bytes) -> str:
    """A file's content for a diff."""
    return "(binary content)\n" if b"\0" in content else content.decode(errors="replace")


def parse_mode(text: str | None, dest: str, state: str) -> int:
    """Octal permissions as a number. Raises ValueError with a message for the user."""
    text = text or DEFAULT_MODES[state]
    if not re.fullmatch(r"[0-7]{1,5}", text):
        raise ValueError(f'{dest}: mode {text!r} is not an octal number in quotes such as "0640"')
    return int(text, 8)


def read(entry: dict[str, Any]) -> Wanted:
    """What is wanted and what is there. Raises ValueError for an entry that cannot be used."""
    dest, state = entry["dest"].rstrip("/") or "/", entry["state"]
    wanted = Wanted(
        dest,
        state,
        entry["owner"],
        entry["group"],
        parse_mode(entry["mode"], dest, state),
        options=entry["options"] or [],
    )
    if not dest.startswith("/") or dest == "/":
        raise ValueError(f"{entry['dest']!r} is not an absolute path of a file or directory")
    if state == "file":
        if entry["encoded"] is None:
            raise ValueError(f"{dest}: no content; config_files works through its action plugin (plugins/action)")
        wanted.text = base64.b64decode(entry["encoded"])
    if os.path.islink(dest):
        wanted.kind = "other"
    elif os.path.isdir(dest):
        wanted.kind = "directory"
    elif os.path.isfile(dest):
        wanted.kind = "file"
        with open(dest, "rb") as stream:
            wanted.before = stream.read()
    elif os.path.lexists(dest):
        wanted.kind = "other"
    return wanted


def account_id(name: str, group: bool) -> int | None:
    """The number of a user or group; None when there is none of that name."""
    if name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid if group else pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def compare(wanted: Wanted) -> None:
    """Fill in what must change."""
    if wanted.state == "absent":
        wanted.differences = [] if wanted.kind == "absent" else ["state"]
        return
    if wanted.kind != wanted.state:
        wanted.differences = ["state"]
        return
    if wanted.state == "file" and wanted.before != wanted.text:
        wanted.differences.append("content")
    present = os.stat(wanted.dest)
    if present.st_uid != account_id(wanted.owner, group=False):
        wanted.differences.append("owner")
    if present.st_gid != account_id(wanted.group, group=True):
        wanted.differences.append("group")
    if present.st_mode & 0o7777 != wanted.mode:
        wanted.differences.append("mode")


def obstacles(entries: list[Wanted]) -> list[str]:
    """What would stop the installation half-way, as messages for the user. Nothing has been written yet."""
    found: list[str] = []
    planned = {wanted.dest for wanted in entries if wanted.state == "directory"}
    for wanted in (entry for entry in entries if entry.state != "absent"):
        for name, group in ((wanted.owner, False), (wanted.group, True)):
            if account_id(name, group) is None:
                found.append(
                    f"{wanted.dest}: the {'group' if group else 'user'} {name!r} does not exist on this host; "
                    "install the package that creates it first"
                )
        if wanted.kind == "directory" and wanted.state == "file":
            found.append(f"{wanted.dest} is a directory, not a file; remove it or choose another dest")
        if wanted.kind in ("file", "other") and wanted.state == "directory":
            found.append(f"{wanted.dest} is not a directory; remove it or choose another dest")
        parent = os.path.dirname(wanted.dest)
        if wanted.state == "file" and not os.path.isdir(parent) and parent not in planned:
            found.append(
                f"{wanted.dest}: the directory {parent} does not exist; install the package that owns it, or list it "
                "before the file with state: directory"
            )
    return found


def diff_entry(wanted: Wanted, secrets: list[str]) -> dict[str, str]:
    """One file's part of the diff. Attributes are listed above the content when they change."""
    before, after = attributes(wanted)
    if "content" in wanted.differences or wanted.kind != wanted.state:
        new = decode(wanted.text)
        old = mask(mask_predecessors(decode(wanted.before or b""), new, secrets), secrets)
        new = mask(new, secrets)
        if old == new and wanted.before is not None and wanted.state == "file":
            before, after = before + "(hidden values: old)\n", after + "(hidden values: new)\n"
        before, after = before + old, after + new
    return {
        "before_header": wanted.dest,
        "after_header": wanted.dest,
        "before": before,
        "after": after,
    }


def attributes(wanted: Wanted) -> tuple[str, str]:
    """The attributes that change, as the lines before and after."""
    if wanted.kind != wanted.state:
        after = f"{wanted.state}\n"
        if wanted.state != "absent":
            after = f"{wanted.state}, {wanted.owner}:{wanted.group}, mode {wanted.mode:04o}\n"
        return f"{wanted.kind}\n", after
    present = os.stat(wanted.dest)
    lines: tuple[list[str], list[str]] = ([], [])
    for name, old, new in (
        ("owner", _name(present.st_uid, group=False), wanted.owner),
        ("group", _name(present.st_gid, group=True), wanted.group),
        ("mode", f"{present.st_mode & 0o7777:04o}", f"{wanted.mode:04o}"),
    ):
        if name in wanted.differences:
            lines[0].append(f"{name}: {old}\n")
            lines[1].append(f"{name}: {new}\n")
    return "".join(lines[0]), "".join(lines[1])


def _name(number: int, group: bool) -> str:
    try:
        return grp.getgrgid(number).gr_name if group else pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def check_options(module: AnsibleModule, entries: list[Wanted]) -> None:
    """Fail when a file that changes has an option or value that the installed services do not accept."""
    files = [entry for entry in entries if entry.options and entry.differences and entry.state == "file"]
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


def install(module: AnsibleModule, wanted: Wanted) -> str:
    """Make one entry so. Returns the path of the backup, if one was made."""
    backup = ""
    if wanted.state == "absent":
        if wanted.kind == "directory":
            shutil.rmtree(wanted.dest)
        else:
            os.unlink(wanted.dest)
        return backup
    if wanted.state == "directory":
        if wanted.kind == "absent":
            os.umask(0o022)
            os.makedirs(os.path.dirname(wanted.dest), exist_ok=True)
            os.umask(0o077)
            os.mkdir(wanted.dest)
    else:
        if wanted.kind == "file":
            # atomic_move copies the old permissions to the new file: they must not be wider than the wanted ones.
            set_attributes(module, wanted)
        if "content" in wanted.differences or "state" in wanted.differences:
            if module.params["backup"] and wanted.kind == "file":
                backup = module.backup_local(wanted.dest)
            write(module, wanted)
    set_attributes(module, wanted)
    return backup


def write(module: AnsibleModule, wanted: Wanted) -> None:
    """Replace the file in one step; at no time can others read more of it than they shall."""
    temporary = os.path.join(module.tmpdir, f"config_files-{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(wanted.text)
    if wanted.kind == "other":
        os.unlink(wanted.dest)
    module.atomic_move(temporary, wanted.dest)


def set_attributes(module: AnsibleModule, wanted: Wanted) -> None:
    module.set_fs_attributes_if_different(
        {
            "path": wanted.dest,
            "owner": wanted.owner,
            "group": wanted.group,
            "mode": f"{wanted.mode:04o}",
            "secontext": [],
            "attributes": None,
        },
        False,
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
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
        },
        supports_check_mode=True,
    )
    # What atomic_move creates is for root alone until its owner and mode are set.
    os.umask(0o077)
    try:
        entries = [read(entry) for entry in module.params["files"]]
    except (ValueError, OSError) as error:
        module.fail_json(msg=f"config_files: {error}")
    for entry in entries:
        compare(entry)
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
    if not module.check_mode:
        backups = {entry.dest: install(module, entry) for entry in changing}
        if module.params["backup"]:
            result["backup_files"] = {dest: path for dest, path in backups.items() if path}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
