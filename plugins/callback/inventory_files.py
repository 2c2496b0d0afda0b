# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Name the files of variables that Ansible cannot read."""

from __future__ import annotations

DOCUMENTATION = r"""
name: inventory_files
type: aggregate
short_description: Name the files of variables that cannot be read
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - Ansible ends a run over a file in C(group_vars) or C(host_vars) that is not valid YAML or that it cannot decrypt,
    and does not say which one. Prints each such file at the start of the run, with the place and the cause.
requirements:
  - allowed in configuration (C(callback_plugins))
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ansible.context as context
from ansible.errors import AnsibleError
from ansible.plugins.callback import CallbackBase

DIRECTORIES = ("group_vars", "host_vars")
# Those that Ansible reads by default.
EXTENSIONS = ("", ".yml", ".yaml", ".json")


def variable_files(inventories: Iterable[str]) -> Iterator[Path]:
    """Yield the files of variables beside inventories."""
    sources = [Path(name) for name in inventories if "," not in name]
    for directory in dict.fromkeys(path if path.is_dir() else path.parent for path in sources):
        for name in DIRECTORIES:
            found = sorted((directory / name).rglob("*"))
            yield from (path for path in found if path.is_file() and is_read(path.relative_to(directory)))


def is_read(path: Path) -> bool:
    """Return whether Ansible reads a file, as it leaves out hidden ones and backups."""
    return path.suffix in EXTENSIONS and not any(part.startswith(".") or part.endswith("~") for part in path.parts)


def unreadable(loader: Any, paths: Iterable[Path]) -> Iterator[str]:
    """Yield a message for each file that cannot be read."""
    for path in paths:
        try:
            # A cached result would be what Ansible uses, without trust in its templates.
            loader.load_from_file(str(path), cache="none")
        except AnsibleError as error:
            mark = getattr(error.__cause__, "problem_mark", None)
            where = f", line {mark.line + 1}" if mark else ""
            yield f"{path}{where}: {error}"


class CallbackModule(CallbackBase):
    """Entry point for Ansible."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "inventory_files"

    def v2_playbook_on_start(self, playbook: Any) -> None:
        for text in unreadable(playbook.get_loader(), variable_files(context.CLIARGS["inventory"] or [])):
            self._display.error(text)
