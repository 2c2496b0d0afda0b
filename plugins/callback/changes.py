# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What a run changed, or a dry run would change, thing by thing instead of task by task."""

from __future__ import annotations

DOCUMENTATION = r"""
name: changes
type: aggregate
short_description: Remember what a run changes, for the drift report and for tests
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - Remembers each change with its host and task, as the modules of the project describe it (files, units, grants,
    endpoints, flavors and so on), and what a dry run could not look at.
  - Prints nothing but the report of C(playbooks/drift.yml), whose last task M(drift_report) judges what is remembered.
options:
  record_file:
    description: File to which the list is written as JSON at the end of the run. Nothing is written where it is empty.
    type: str
    default: ""
    env:
      - name: KILONOVA_CHANGES_FILE
    ini:
      - section: callback_changes
        key: record_file
requirements:
  - allowed in configuration (C(callback_plugins))
"""

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

# Of the modules' results, the keys that list what changed, one sentence or name each, and what is said of a name.
NAMED = {
    "changed_files": "{}",
    "changes": "{}",
    "actions": "{}",
    "mappings": "{}",
    "hosts": "map {} to its cell",
    "made": "make {}",
    "generated": "generate {}",
    "upgraded": "upgrade the schema {}",
    "commands": "run {}",
    "started": "start {}",
    "stopped": "stop {}",
    "disabled": "disable {}",
    "masked": "mask {}",
    "unmasked": "unmask {}",
}
# This run's, in the order in which they came. Each is {host, task, items} or {host, task, not_looked_at}. Tasks run in
# forks of this process, so that an action plugin finds here what came before it.
RECORD: list[dict[str, Any]] = []


def items(result: dict[str, Any], fallback: str) -> list[str]:
    """What one changed result changed. ``fallback`` is said where the result does not say."""
    found: list[str] = []
    for key, text in NAMED.items():
        value = result.get(key)
        found += [text.format(entry) for entry in value if isinstance(entry, str)] if isinstance(value, list) else []
    restarted = [entry["name"] for entry in result.get("restarted") or [] if isinstance(entry, dict)]
    found += [f"restart {name}" for name in restarted]
    # A unit that is started is there to stay; that it starts at boot is worth a word where nothing else is.
    started = result.get("started") or []
    found += [f"enable {name}" for name in result.get("enabled") or [] if name not in [*started, *restarted]]
    if "lists_updated" in result:  # apt_packages; nova_cells means something else by missing
        found += [f"install {name}" for name in result["missing"]] + list(result["repaired"])
    return found or [str(result.get("dest") or result.get("path") or fallback)]


def entries(host: str, task: str, result: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of one task's result on one host; a loop's are merged."""
    parts = result.get("results") or [result]
    changed = [item for part in parts if part.get("changed") for item in items(part, task)]
    found: list[dict[str, Any]] = []
    if changed:
        found.append({"host": host, "task": task, "items": list(dict.fromkeys(changed))})
    blind = [part["not_looked_at"] for part in parts if part.get("not_looked_at")]
    return found + [{"host": host, "task": task, "not_looked_at": text} for text in blind]


def report(record: list[dict[str, Any]]) -> list[str]:
    """The lines of the report: what differs, host by host, and what could not be looked at."""
    lines: list[str] = []
    for host in dict.fromkeys(entry["host"] for entry in record):
        lines.append(host)
        for entry in (entry for entry in record if entry["host"] == host):
            if entry.get("items"):
                lines.append(f"  {entry['task']}")
                lines += [f"    {item}" for item in entry["items"]]
            if entry.get("not_looked_at"):
                lines.append(f"  NOT LOOKED AT: {entry['not_looked_at']}")
    return lines


def write(path: Path, record: list[dict[str, Any]]) -> None:
    """Write the list in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


class CallbackModule(CallbackBase):
    """Entry point for Ansible."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "changes"

    def __init__(self) -> None:
        super().__init__()
        self.judged = False

    def v2_playbook_on_start(self, playbook: Any) -> None:
        RECORD.clear()

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self.judged = self.judged or result.task.action == "drift_report"

    def v2_runner_on_ok(self, result: Any) -> None:
        if result.task.no_log:
            if result.result.get("changed"):
                name = result.task.get_name()
                RECORD.append({"host": result.host.get_name(), "task": name, "items": [name]})
            return
        RECORD.extend(entries(result.host.get_name(), result.task.get_name(), dict(result.result)))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if self.judged:
            self._display.banner("DIFFERENCES")
            for line in report(RECORD):
                self._display.display(line)
        path = self.get_option("record_file")
        if path:
            write(Path(path).expanduser(), RECORD)
