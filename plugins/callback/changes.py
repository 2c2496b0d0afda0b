# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""List what a run changed, or a dry run would change, by item instead of by task."""

from __future__ import annotations

DOCUMENTATION = r"""
name: changes
type: aggregate
short_description: Record what a run changes, for the drift report and for tests
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - Records each change with its host and task, as the project's modules describe it (files, units, grants, endpoints,
    flavors and so on). In check mode also what needs the operator (C(needs_you) in a result) and what could not be
    looked at (C(not_looked_at)).
  - At the end of C(playbooks/drift.yml), prints all of it by host. At the end of other runs, prints only what needs the
    operator and what could not be looked at.
  - In C(playbooks/drift.yml), which sets C(report_drift), an ignored failure and a host that does not answer count as
    not looked at.
options:
  record_file:
    description: File to write the list to as JSON at the end of the run. Nothing is written if empty.
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

import ansible.module_utils
from ansible.plugins.callback import CallbackBase

# Ansible adds the project's module_utils for modules, not for plugins.
MODULE_UTILS = str(Path(__file__).resolve().parents[2] / "module_utils")
if MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(MODULE_UTILS)

from ansible.module_utils.kilonova.system import changes

REPORT = "drift_report"


def write(path: Path, record: list[changes.Entry]) -> None:
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
        self.reports_drift = False
        self.reported = False

    def v2_playbook_on_start(self, playbook: Any) -> None:
        changes.RECORD.begin()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self.reports_drift |= bool(play.vars.get("report_drift"))

    def record(self, result: Any, **state: bool) -> None:
        """Record a task's result on a host."""
        if result.task.action == REPORT and "needs_you" not in result.result:
            self.reported = True
            return
        found = dict(result.result) | state
        if result.task.no_log:
            found = {key: found.get(key) for key in ("changed", "failed", "unreachable")} | {"msg": "hidden by no_log"}
        changes.RECORD.entries += changes.entries(result.host.get_name(), result.task.get_name(), found)

    def v2_runner_on_ok(self, result: Any) -> None:
        self.record(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        # Failures that are not ignored are the business of Ansible and the callback plugin "failures".
        if result.task.action == REPORT or (ignore_errors and self.reports_drift):
            # Ansible takes this key out of results.
            self.record(result, failed=True)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        if result.task.action == REPORT or self.reports_drift:
            self.record(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self.show(changes.RECORD.entries)
        path = self.get_option("record_file")
        if path:
            write(Path(path).expanduser(), changes.RECORD.entries)

    def show(self, record: list[changes.Entry]) -> None:
        """Print the drift report, or what a plain dry run must not pass over."""
        if self.reported:
            end = changes.verdict(record) or "Nothing differs from the inventory."
            self.print("DRIFT", [*changes.report(record), end])
        elif self.reports_drift:
            self.print("DRIFT", [*changes.report(record), "The run ended before everything was compared."])
        else:
            self.print("NEEDS ATTENTION", changes.report(record, changes.obstacles))

    def print(self, title: str, lines: list[str]) -> None:
        """Print lines below a banner; nothing without lines."""
        if lines:
            self._display.banner(title)
        for line in lines:
            self._display.display(line)
