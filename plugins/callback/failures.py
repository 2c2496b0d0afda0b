# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The last thing that a run prints: which hosts failed, in which task, and why."""

from __future__ import annotations

DOCUMENTATION = r"""
name: failures
type: aggregate
short_description: List the hosts that failed, with the cause, after everything else
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - Ansible shows a failure where it happens, and at the end only numbers. With many hosts the cause is pages above.
  - Prints nothing when no host failed. A failure that the playbook rescued is none.
requirements:
  - allowed in configuration (C(callback_plugins))
"""

from typing import Any

from ansible.plugins.callback import CallbackBase

# The whole message was shown where it happened; logs in it are long.
SHOWN_LINES = 6


def cause(result: dict[str, Any]) -> list[str]:
    """The beginning of a failed task's message, of its failed items where it has some."""
    items = [item for item in result.get("results") or [] if item.get("failed") or item.get("unreachable")]
    lines = "\n".join(map(message, items or [result])).splitlines()
    more = len(lines) - SHOWN_LINES
    return lines if more <= 0 else [*lines[:SHOWN_LINES], f"({more} more lines above)"]


def message(result: dict[str, Any]) -> str:
    """A result's message; the end of its output where it is a command's that says nothing."""
    text = str(result.get("msg") or "").strip()
    if text in ("", "non-zero return code"):
        output = str(result.get("stderr") or result.get("stdout") or "").strip().splitlines()
        text = "\n".join([text, *output[-SHOWN_LINES + 1 :]]).strip()
    return text or "no message"


def listing(failed: dict[str, tuple[str, list[str]]]) -> list[str]:
    """The text of {host: (task, lines of the cause)}; hosts with the same failure are one entry."""
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

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        # What a drift report finds is its result, and no failure to look.
        if result.task.action == "drift_report":
            self.reported.add(result.host.get_name())
        elif not ignore_errors:
            self.last[result.host.get_name()] = (result.task.get_name(), cause(result.result))

    def v2_runner_on_unreachable(self, result: Any) -> None:
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
        self._display.display("The next run goes on from there: nothing has to be undone.")
