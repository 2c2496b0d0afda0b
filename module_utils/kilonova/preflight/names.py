# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the names of variables against the argument specs of the roles."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from ansible.module_utils.kilonova.preflight.roles import Known

# Ansible's own variables.
FOREIGN = re.compile(
    r"^(ansible_|inventory_|group_names$|groups$|hostvars$|omit$|play_hosts$|playbook_dir$|role_|environment$)"
)
TASKS = ("roles/*/tasks/*.yml", "playbooks/*.yml", "playbooks/tasks/*.yml")
RENAMED = {
    "host_apt_sources": "base_apt_sources",
    "host_apt_proxy": "base_apt_proxy",
    "host_apt_cache_valid_time": "base_apt_cache_valid_time",
    "host_time_sync": "base_time_sync",
    "host_time_servers": "base_time_servers",
    "host_extra_packages": "base_extra_packages",
}
# Names that earlier versions wrote into the file of secrets, or that mean nothing any more.
RETIRED = {"rabbitmq_password": "each service and each compute has an account of its own in RabbitMQ"}


def ours(name: str, known: Known) -> bool:
    """Return whether a name that no role declares begins like one of the project's."""
    return name not in known.names and not FOREIGN.match(name) and name.startswith(known.prefixes)


def set_by_tasks(names: Iterable[str], project: Path) -> set[str]:
    """Return those of the names that tasks of roles and playbooks register or set as facts."""
    wanted = set(names)
    if not wanted:
        return set()
    found = (path for pattern in TASKS for path in project.glob(pattern))
    text = "\n".join(path.read_text(encoding="utf-8") for path in found)
    return {name for name in wanted if re.search(rf"^ +(register: +{name}$|{name}:)", text, re.MULTILINE)}


def check_names(names: Iterable[str], known: Known) -> list[str]:
    """Report variables that begin like the project's and that no role declares."""
    found = []
    for name in sorted(names):
        if not ours(name, known) or name in RETIRED:
            continue
        close = difflib.get_close_matches(name, sorted(known.names), n=1, cutoff=0.6)
        instead = f"Did you mean {close[0]}?" if close else "See docs/roles for the names there are."
        found.append(
            f"{name}: no role knows a variable of this name, so setting it does nothing. {instead} Rename it if it is "
            "your own."
        )
    return found


def check_renamed(names: Iterable[str]) -> list[str]:
    """Report names that variables had in earlier versions."""
    return [
        f"{name}: this variable is now called {RENAMED[name]}, so setting it does nothing. Rename it."
        for name in sorted(names)
        if name in RENAMED
    ]


def note_names(names: Iterable[str], known: Known) -> list[str]:
    """Note variables without a prefix of the project that resemble one of its variables."""
    found = [
        f"{name} is not used any more: {RETIRED[name]}. Remove the line." for name in sorted(names) if name in RETIRED
    ]
    for name in sorted(names):
        if name in known.names or name in RENAMED or FOREIGN.match(name) or name.startswith(known.prefixes):
            continue
        close = difflib.get_close_matches(name, sorted(known.options), n=1, cutoff=0.88)
        if close:
            found.append(f"{name} is not a variable of this project. Did you mean {close[0]}?")
    return found
