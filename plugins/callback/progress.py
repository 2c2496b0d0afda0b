# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Show one moving line on a terminal and Ansible's default output everywhere else."""

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: A progress line on a terminal, the default output elsewhere
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - On a terminal, the last line shows the time since the start, the time left if an earlier run tells it, the play, the
    task, and the hosts that still work on it. Only changed tasks, messages, failures and finished plays stay above it.
  - Without a terminal, with C(-v) and on request, the output is that of P(ansible.builtin.default#callback).
extends_documentation_fragment:
  - default_callback
  - result_format_callback
options:
  plain:
    description: Show the default callback's output on a terminal, too.
    type: bool
    default: false
    env:
      - name: KILONOVA_PLAIN_OUTPUT
  profiles:
    description: Where complete runs are recorded. By default, the project's playbooks use its C(.cache/progress).
    type: path
    env:
      - name: KILONOVA_PROGRESS_PROFILES
"""

import atexit
import contextlib
import hashlib
import io
import json
import math
import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import count, dropwhile, takewhile
from pathlib import Path
from typing import Any

import ansible.constants as C
import ansible.context as context
from ansible.plugins.callback.default import CallbackModule as DefaultCallback

PROJECT = Path(__file__).resolve().parents[2]
REFRESH_SECONDS = 0.5
KEPT_RUNS = 3  # Such as a deployment, a change, and a run that changed nothing.
ALIKE = 0.7  # The share of tasks that must end alike in two runs.

# The tasks of a run in order: seconds, and whether the task changed something.
Run = dict[str, tuple[float, bool]]


def alike(run: Run, record: Run, tasks: Sequence[str]) -> bool:
    """Return whether most of these tasks of a run ended, changed or unchanged, as in a recorded run."""
    same = sum(task in record and record[task][1] == run[task][1] for task in tasks)
    return same >= ALIKE * len(tasks)


def find_guide(records: Iterable[Run], done: Run) -> Run | None:
    """Return the newest run like this one since its first change. Before a change, only runs without changes count."""
    since = list(dropwhile(lambda task: not done[task][1], done))
    for record in records:
        if alike(done, record, since) and (since or not any(changed for _, changed in record.values())):
            return record
    return None


def merged(records: Iterable[Run], new: Run) -> list[Run]:
    """Return the runs to keep, newest first. A new run replaces those like it."""
    others = [run for run in records if not (alike(new, run, list(new)) and alike(run, new, list(run)))]
    return [new, *others][:KEPT_RUNS]


def read(path: Path) -> list[Run]:
    """Return the recorded runs, newest first; none if the file is missing or damaged."""
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))
        return [{task: (float(seconds), bool(changed)) for task, (seconds, changed) in run.items()} for run in runs]
    except (OSError, ValueError, TypeError, AttributeError):
        return []


def write(path: Path, records: list[Run]) -> None:
    """Write the recorded runs, if that is possible."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(records) + "\n", encoding="utf-8")


class Clock:
    """Time the tasks of a run and estimate the rest from an earlier run."""

    def __init__(self, records: Iterable[Run] = (), now: Callable[[], float] = time.monotonic) -> None:
        self.records, self.now = list(records), now
        self.guide = find_guide(self.records, {})
        self.started = self.task_started = now()
        self.done: Run = {}
        self.task, self.changed = "", False

    def elapsed(self) -> float:
        return self.now() - self.started

    def begin(self, name: str) -> None:
        """Start timing a task. Its name may have occurred before, such as in an earlier batch of the play."""
        self.end()
        self.task = next(task for number in count(1) if (task := f"{name} #{number}") not in self.done)
        self.task_started, self.changed = self.now(), False

    def end(self) -> None:
        """Stop timing."""
        if self.task:
            self.done[self.task] = (round(self.now() - self.task_started, 2), self.changed)
            self.task = ""
            self.guide = find_guide(self.records, self.done)

    def left(self) -> float | None:
        """Return the seconds that the guide took from here on; None without a guide or if it was much faster here."""
        if self.guide is None:
            return None
        expected = self.guide.get(self.task, (0.0, False))[0]
        running = self.now() - self.task_started if self.task else 0.0
        if running > 2 * expected + 30:
            return None
        ahead = takewhile(lambda task: task != self.task and task not in self.done, reversed(self.guide))
        return max(0.0, expected - running) + sum(self.guide[task][0] for task in ahead)


def duration(seconds: float) -> str:
    """Return minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def time_left(seconds: float) -> str:
    """Return an expected time, rounded."""
    if seconds < 100:
        return f"about {math.ceil(seconds / 10) * 10} s left" if seconds > 10 else "under 10 s left"
    return f"about {round(seconds / 60)} min left"


def some(hosts: Sequence[str]) -> str:
    """Return the names of hosts, or their number if there are many."""
    return ", ".join(hosts) if len(hosts) <= 3 else f"{len(hosts)} hosts"


def layout(width: int, times: str, play: str, task: str, hosts: Sequence[str]) -> str:
    """Return the progress line. If room is short, the play goes first, then the hosts, then the end of the task."""
    for parts in ((times, play, task, some(hosts)), (times, task, some(hosts)), (times, task)):
        line = " | ".join(filter(None, parts))
        if len(line) <= width:
            return line
    return (line[: max(0, width - 3)] + "...")[:width]


class Line:
    """The last line of the terminal. It goes away before this process writes anything else."""

    def __init__(self) -> None:
        # A worker may be forked while the thread that redraws holds this lock, so workers must not take it. For the
        # same reason, the line is written past the buffers of sys.stdout, which have locks as well.
        self.lock = threading.RLock()
        self.process, self.file = os.getpid(), sys.stdout.fileno()
        self.text, self.held, self.at_line_start = "", True, True
        for stream in (sys.stdout, sys.stderr):
            if stream.isatty():
                self.guard(stream.buffer)

    def guard(self, buffer: Any) -> None:
        """Erase the line before something is written to a stream."""
        write = buffer.write

        def guarded(data: Any) -> Any:
            if os.getpid() != self.process or not data:
                return write(data)
            with self.lock:
                self.draw("")
                self.at_line_start = False
            written = write(data)
            buffer.flush()
            self.at_line_start = bytes(data[-1:]) == b"\n"
            return written

        buffer.write = guarded

    def draw(self, text: str) -> None:
        """Replace the line; the empty text erases it."""
        with self.lock:
            if text == self.text or (text and (self.held or not self.at_line_start)):
                return
            self.text = text
            # After ^Z and bg, the terminal is the shell's. It may also be gone.
            with contextlib.suppress(OSError):
                if os.tcgetpgrp(self.file) == os.getpgrp():
                    os.write(self.file, f"\r{text}\x1b[K".encode(errors="replace"))

    def hold(self, held: bool) -> None:
        """Keep the line away, such as while something is asked, or let it come back."""
        with self.lock:
            self.held = held
            self.at_line_start = True  # The line feed of an answer was not written here.
            if held:
                self.draw("")


class CallbackModule(DefaultCallback):
    """Entry point for Ansible."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "progress"

    def __init__(self) -> None:
        super().__init__()
        self.line: Line | None = None  # None for plain output.
        self.clock = Clock()
        self.profile: Path | None = None
        self.check = False
        self.play, self.play_started, self.task = "", 0.0, ""
        self.working: dict[str, None] = {}
        self.changed: list[str] = []
        self.counts: Counter[str] = Counter()

    def set_options(self, task_keys: Any = None, var_options: Any = None, direct: Any = None) -> None:
        super().set_options(task_keys=task_keys, var_options=var_options, direct=direct)
        self.check = bool(context.CLIARGS.get("check"))
        if not self.wants_line():
            return
        # With both of display_skipped_hosts and display_ok_hosts, the default callback shows every task.
        self.set_option("display_skipped_hosts", False)
        if not self.line:
            self.line = Line()
            # Last registered, first called: an interrupted task may have changed hosts.
            atexit.register(self.line.hold, True)
            atexit.register(self.show_changes)
            threading.Thread(target=self.tick, name="progress", daemon=True).start()

    def wants_line(self) -> bool:
        """Return whether there is a terminal that can erase a line, and a user who did not ask for more."""
        asked = C.ENABLE_TASK_DEBUGGER or context.CLIARGS.get("step") or self.get_option("plain")
        terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        return terminal and not asked and not self._display.verbosity

    def tick(self) -> None:
        while True:
            time.sleep(REFRESH_SECONDS)
            self.redraw()

    def redraw(self) -> None:
        if not self.line or self.line.held:
            return
        times = ("CHECK MODE | " if self.check else "") + duration(self.clock.elapsed())
        if (left := self.clock.left()) is not None:
            times += f", {time_left(left)}"
        width = shutil.get_terminal_size().columns - 1  # Some terminals wrap after the last column.
        self.line.draw(layout(width, times, self.play, self.task, list(self.working)))

    def show_changes(self) -> None:
        """Show which hosts the task changed."""
        hosts, self.changed = sorted(self.changed), []
        if hosts:
            verb = "would change" if self.check else "changed"
            self._display.display(f"  {verb}: {self.task}: {some(hosts)}", color=C.COLOR_CHANGED)

    def finish_play(self) -> None:
        """Show the finished play, unless nothing ran in it."""
        self.clock.end()
        self.show_changes()
        counts, self.counts = self.counts, Counter()
        if counts:
            text = ", ".join(f"{number} {status}" for status, number in counts.items())
            text = f"{self.play}: {text}, {duration(self.clock.elapsed() - self.play_started)}"
            self._display.display(text, color=C.COLOR_ERROR if counts["failed"] else C.COLOR_OK)

    def finish(self) -> None:
        """Leave the terminal as it was."""
        self.finish_play()
        if self.line:
            self.line.hold(True)

    def report(self, result: Any, status: str) -> None:
        """Count a host's result and note whether it changed something."""
        self.working.pop(result.host.get_name(), None)
        self.clock.changed |= result.is_changed()
        if self.line:
            self.conceal(result)
            self.counts[status] += 1
            if status == "ok" and result.is_changed():
                self.counts["changed"] += 1
                self.changed.append(result.host.get_name())

    def conceal(self, result: Any) -> None:
        """Remove what Ansible 2.19 shows of a no_log task: its error and its warnings."""
        if self.line and "censored" in result.result:
            for key in ("exception", "warnings", "deprecations"):
                result.result.pop(key, None)

    def is_shown(self, result: Any) -> bool:
        """Return whether the default callback shows a successful result. If not, show its warnings."""
        if not self.line or result.task.action in ("debug", "ansible.builtin.debug"):
            return True
        for warning in result.result.get("warnings") or ():
            self._display.warning(warning)
        return False

    def find_profile(self) -> Path | None:
        """Return the file of earlier complete runs of this playbook with this inventory, these hosts and tags."""
        arguments = context.CLIARGS
        playbook, *more = [Path(name).resolve() for name in arguments["args"]]
        directory = self.get_option("profiles") or (playbook.is_relative_to(PROJECT) and PROJECT / ".cache/progress")
        if more or arguments["start_at_task"] or not directory:
            return None
        about = [str(playbook), self.check, arguments["subset"]]
        about += [sorted(arguments[name] or ()) for name in ("inventory", "tags", "skip_tags")]
        return Path(directory) / f"{playbook.stem}-{hashlib.sha256(repr(about).encode()).hexdigest()[:12]}.json"

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self.profile = self.find_profile()
        self.clock = Clock(read(self.profile) if self.profile else ())
        super().v2_playbook_on_start(playbook)

    def v2_playbook_on_vars_prompt(self, *args: Any, **kwargs: Any) -> None:
        self.finish()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self.finish_play()
        self.play, self.task, self.play_started = " ".join(play.get_name().split()), "", self.clock.elapsed()
        # The default callback must know the play, but the line replaces its banner.
        with contextlib.redirect_stdout(io.StringIO()) if self.line else contextlib.nullcontext():
            super().v2_playbook_on_play_start(play)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        if not self.line:
            super().v2_playbook_on_no_hosts_matched()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self.begin_task(task)
        super().v2_playbook_on_task_start(task, is_conditional)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.begin_task(task)
        super().v2_playbook_on_handler_task_start(task)

    def begin_task(self, task: Any) -> None:
        self.show_changes()
        self.task, self.working = " ".join(task.get_name().split()), {}
        self.clock.begin(f"{self.play} | {self.task}")
        if self.line:
            self.line.hold(task.action in ("pause", "ansible.builtin.pause"))
            self.redraw()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self.finish()
        super().v2_playbook_on_stats(stats)
        if self.profile and stats.processed and not stats.failures and not stats.dark:
            write(self.profile, merged(read(self.profile), self.clock.done))

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        super().v2_runner_on_start(host, task)
        self.working[host.get_name()] = None
        self.redraw()

    def v2_runner_on_ok(self, result: Any) -> None:
        self.report(result, "ok")
        if self.is_shown(result):
            super().v2_runner_on_ok(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        self.conceal(result)
        if self.is_shown(result):
            super().v2_runner_item_on_ok(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self.report(result, "ok" if ignore_errors else "failed")
        super().v2_runner_on_failed(result, ignore_errors=ignore_errors)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        self.conceal(result)
        super().v2_runner_item_on_failed(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self.report(result, "ok" if result.task.ignore_unreachable else "failed")
        super().v2_runner_on_unreachable(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self.working.pop(result.host.get_name(), None)
        super().v2_runner_on_skipped(result)

    def v2_runner_retry(self, result: Any) -> None:
        if not self.line:
            super().v2_runner_retry(result)
