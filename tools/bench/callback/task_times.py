# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Record when each task of a run began, how long it took and what it changed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: task_times
type: aggregate
short_description: Write each task's times and changes as JSON
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - Writes one JSON object to the file that the environment variable C(KILONOVA_TASK_TIMES) names.
  - A task ends when the next one begins, so its time includes what Ansible needs between the two.
  - Times are on the clock CLOCK_MONOTONIC.
requirements:
  - allowed in configuration (C(callbacks_enabled))
"""


class CallbackModule(CallbackBase):
    """Entry point for Ansible."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_times"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[dict[str, Any]] = []
        self.play = ""

    def _end_task(self) -> None:
        if self.tasks and "seconds" not in self.tasks[-1]:
            self.tasks[-1]["seconds"] = round(time.monotonic() - self.tasks[-1]["start"], 3)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._end_task()
        self.play = play.get_name().strip()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._end_task()
        name = task.get_name().strip()
        self.tasks.append({"play": self.play, "task": name, "start": time.monotonic(), "changed": []})

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, False)

    def v2_runner_on_ok(self, result: Any) -> None:
        if result.result.get("changed"):
            self.tasks[-1]["changed"].append(result.host.get_name())

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._end_task()
        hosts = {host: stats.summarize(host) for host in sorted(stats.processed)}
        Path(os.environ["KILONOVA_TASK_TIMES"]).write_text(json.dumps({"tasks": self.tasks, "hosts": hosts}))
