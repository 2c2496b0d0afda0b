# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""List the failed hosts at the end of a run, with the task and the cause."""

from __future__ import annotations

DOCUMENTATION = r"""
name: failures
type: aggregate
short_description: List the hosts that failed, with the cause, after everything else
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - Ansible shows a failure where it happens and only numbers at the end. With many hosts, the cause is pages above.
  - Prints nothing if no host failed. Rescued and ignored failures do not count.
requirements:
  - allowed in configuration (C(callback_plugins))
"""

from pathlib import Path
from typing import Any

import ansible.context as context
from ansible.plugins.callback import CallbackBase

# The whole message was shown where it happened.
SHOWN_LINES = 6
# Actions that change only the computer that runs Ansible.
LOCAL_ACTIONS = ("secrets_file",)


def cause(result: dict[str, Any]) -> list[str]:
    """Return the first lines of a failed task's message, or of the messages of its failed items."""
    items = [item for item in result.get("results") or [] if item.get("failed") or item.get("unreachable")]
    lines = "\n".join(map(message, items or [result])).splitlines()
    more = len(lines) - SHOWN_LINES
    return lines if more <= 0 else [*lines[:SHOWN_LINES], f"({more} more lines above)"]


def message(result: dict[str, Any]) -> str:
    """Return a result's message, and the end of its output if it is a command without one."""
    text = str(result.get("msg") or "").strip()
    if text in ("", "non-zero return code"):
        output = str(result.get("stderr") or result.get("stdout") or "").strip().splitlines()
        text = "\n".join([text, *output[-SHOWN_LINES + 1 :]]).strip()
    return text or "no message"


def listing(failed: dict[str, tuple[str, list[str]]]) -> list[str]:
    """Return the lines to print for {host: (task, cause)}. Hosts with the same failure share an entry."""
    entries: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for host, (task, lines) in failed.items():
        entries.setdefault((task, tuple(lines)), []).append(host)
    text = []
    for (task, shown), hosts in entries.items():
        text.append(f"{', '.join(hosts)}: {task}")
        text += [f"    {line}" for line in shown]
    return text


class CallbackModule(CallbackBase):
    """Entry point for Ansible."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "failures"

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[str, tuple[str, list[str]]] = {}
        self.reported: set[str] = set()
        self.hosts_changed = False

    def note_change(self, result: Any) -> None:
        self.hosts_changed |= result.is_changed() and result.task.action not in LOCAL_ACTIONS

    def goes_on(self) -> bool:
        """Return whether the next run continues what this one began."""
        deploys = "site.yml" in (Path(playbook).name for playbook in context.CLIARGS["args"])
        return deploys and self.hosts_changed and not context.CLIARGS["check"]

    def v2_runner_on_ok(self, result: Any) -> None:
        self.note_change(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self.note_change(result)
        # Differences found by the drift report are its result, not a failure.
        if result.task.action == "drift_report":
            self.reported.add(result.host.get_name())
        elif not ignore_errors:
            self.last[result.host.get_name()] = (result.task.get_name(), cause(result.result))

    def v2_runner_on_unreachable(self, result: Any) -> None:
        if result.task.action == "drift_report":
            self.reported.add(result.host.get_name())
            return
        self.last[result.host.get_name()] = ("unreachable", cause(result.result))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        failed = {
            host: self.last.get(host, ("failed", []))
            for host in sorted(stats.processed)
            if (stats.failures.get(host) or stats.dark.get(host)) and (host in self.last or host not in self.reported)
        }
        if not failed:
            return
        self._display.banner("HOSTS THAT FAILED")
        for line in listing(failed):
            self._display.display(line, color="red")
        if self.goes_on():
            self._display.display("The next run goes on from there: nothing has to be undone.")
