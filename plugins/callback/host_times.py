# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Record how long each host took in each play of a run."""

from __future__ import annotations

DOCUMENTATION = r"""
name: host_times
type: aggregate
short_description: Record how long each host took in each play of a run
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - At the end of a run, writes a JSON file with the seconds of each host in each play, its changed tasks, and
    Ansible's counts.
  - A C(run_once) task counts for the host that runs it. Hosts work in parallel, so their times add up to more than the
    run took.
  - Does nothing unless O(path) is set.
options:
  path:
    description: The file to write.
    type: path
    default: ""
    env:
      - name: KILONOVA_HOST_TIMES
requirements:
  - enabled in configuration (C(callbacks_enabled))
"""

import json
import time
from collections.abc import Callable
from typing import Any

from ansible.plugins.callback import CallbackBase

COUNTS = ("ok", "changed", "failures", "unreachable")


class HostTimes:
    """Sum the durations of tasks by host and play."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.begun = clock()
        self.play = ""
        self.plays: list[dict[str, Any]] = []
        self.running: dict[tuple[str, str], float] = {}
        self.hosts: dict[str, dict[str, Any]] = {}

    def begin_play(self, name: str) -> None:
        self.end_play()
        self.play = name
        self.plays.append({"name": name, "begun": self.clock()})

    def end_play(self) -> None:
        if self.plays and "seconds" not in self.plays[-1]:
            self.plays[-1]["seconds"] = round(self.clock() - self.plays[-1].pop("begun"), 2)

    def begin_task(self, host: str, task: str) -> None:
        self.running[host, task] = self.clock()

    def end_task(self, host: str, task: str, name: str, changed: bool) -> None:
        begun = self.running.pop((host, task), None)
        if begun is None:
            return
        entry = self.hosts.setdefault(host, {"plays": {}, "changed_tasks": []})
        entry["plays"][self.play] = round(entry["plays"].get(self.play, 0.0) + self.clock() - begun, 3)
        if changed:
            entry["changed_tasks"].append(name)

    def record(self, counts: dict[str, dict[str, int]]) -> dict[str, Any]:
        """Return the content of the file, given Ansible's counts of each host."""
        self.end_play()
        hosts = {}
        for name, count in counts.items():
            known = self.hosts.get(name, {"plays": {}, "changed_tasks": []})
            hosts[name] = count | known | {"seconds": round(sum(known["plays"].values()), 2)}
        return {"seconds": round(self.clock() - self.begun, 2), "plays": self.plays, "hosts": hosts}


class CallbackModule(CallbackBase):
    """Entry point for Ansible."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "host_times"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.times = HostTimes()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self.times.begin_play(play.get_name().strip())

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self.times.begin_task(host.get_name(), task._uuid)

    def _end(self, result: Any) -> None:
        changed = bool(result.result.get("changed"))
        self.times.end_task(result.host.get_name(), result.task._uuid, result.task.get_name(), changed)

    def v2_runner_on_ok(self, result: Any) -> None:
        self._end(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._end(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._end(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._end(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        path = self.get_option("path")
        if not path:
            return
        summaries = {host: stats.summarize(host) for host in sorted(stats.processed)}
        counts = {host: {name: summary[name] for name in COUNTS} for host, summary in summaries.items()}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.times.record(counts), file, indent=1)
