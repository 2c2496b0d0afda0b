# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""End a run in one of several ways."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable

from tools.chaos.lab import Lab, parents
from tools.chaos.moments import CUT, HOST
from tools.chaos.run import END_SECONDS, Run

SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}


def descendants(above: dict[int, int], root: int) -> list[int]:
    """Return all processes that a process started, directly or not, from {process: parent}."""
    found, queue = [], [root]
    while queue:
        parent = queue.pop()
        children = [pid for pid, its_parent in above.items() if its_parent == parent]
        found += children
        queue += children
    return found


def kill(pids: Iterable[int]) -> None:
    """Kill processes, if they still run."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def strike(run: Run, way: str, lab: Lab) -> None:
    """End a run and wait for its end."""
    started = descendants(parents(), run.process.pid)
    os.killpg(run.process.pid, SIGNALS.get(way, signal.SIGKILL))
    if way in (CUT, HOST):
        kill(started)
        on_host = list(lab.sessions()) if way == HOST else []
        kill(lab.connections())
        kill(on_host)
    try:
        run.finish(END_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(run.process.pid, signal.SIGKILL)
        run.finish(END_SECONDS)
