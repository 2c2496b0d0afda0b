# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Output of a run: one moving line on a terminal, Ansible's default output everywhere else."""

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: A progress line on a terminal, the default output elsewhere
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - On a terminal, the last line shows the time since the start, where an earlier complete run is a guide the time that
    is expected to be left, the play, the task, and the hosts that still work on it. Above it appear only tasks that
    changed something, messages, failures, and one line for each finished play.
  - Without a terminal, with C(-v) and on request, the output is to the letter that of the callback
    P(ansible.builtin.default#callback). Failures, messages and the recap at the end are the default callback's on a
    terminal, too.
  - Complete successful runs are recorded, with the seconds of every task. Nothing but names and times is kept.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - set as stdout in configuration
options:
  plain:
    description: The default callback's output, also on a terminal.
    type: bool
    default: false
    env:
      - name: KILONOVA_PLAIN_OUTPUT
    ini:
      - section: callback_progress
        key: plain
  refresh:
    description: Seconds between two redraws of the line.
    type: float
    default: 1.0
    env:
      - name: KILONOVA_PROGRESS_REFRESH
    ini:
      - section: callback_progress
        key: refresh
  profiles:
    description:
      - Directory of the recorded runs.
      - By default C(.cache/progress) of the project, where only the project's own playbooks are recorded.
    type: path
    env:
      - name: KILONOVA_PROGRESS_PROFILES
    ini:
      - section: callback_progress
        key: profiles
"""

import atexit
import contextlib
import hashlib
import json
import math
import os
import sys
import tempfile
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import ansible.constants as C
import ansible.context as context
from ansible.playbook.task_include import TaskInclude
from ansible.plugins.callback.default import CallbackModule as DefaultCallback

PROJECT = Path(__file__).resolve().parents[2]

# ---------------------------------------------------------------- what earlier runs tell

# Runs that are kept of one playbook on the same hosts: the last of each kind, such as a first deployment, a run that
# changed nothing, and two in between.
KEPT_RUNS = 4
# Playbooks and sets of hosts whose runs are kept.
KEPT_PROFILES = 20
# How much less the step before tells than a step: the last 34 steps weigh as much as all those before them.
FADING = 0.98
# The share of steps that may have gone otherwise in a run that is still a guide.
TOLERANCE = 0.3
# Runs whose shares are closer than this are equally good guides.
MARGIN = 0.1
# Seconds. A shorter difference between two times is no difference.
NOTICEABLE = 5.0
# Seconds. How long a task may exceed twice its time, or may be unknown, before nothing is expected any more.
PATIENCE = 30.0


class Step(NamedTuple):
    """One task of one play, on all its hosts."""

    play: str
    task: str
    # How often it was met before, because a play can run in batches and two tasks of it can have one name.
    number: int
    seconds: float
    changed: bool

    @property
    def key(self) -> tuple[str, str, int]:
        """Its name, unique in a run."""
        return self.play, self.task, self.number


Run = Sequence[Step]


def run(steps: Iterable[tuple[str, str, float, bool]]) -> list[Step]:
    """A run from (play, task, seconds, changed) in the order in which they happened."""
    met: Counter[tuple[str, str]] = Counter()
    found = []
    for play, task, seconds, changed in steps:
        found.append(Step(play, task, met[play, task], seconds, changed))
        met[play, task] += 1
    return found


def alike(one: Step, other: Step) -> bool:
    """Whether a step went as it did in another run."""
    fast, slow = sorted((one.seconds, other.seconds))
    return one.changed == other.changed and (slow - fast < NOTICEABLE or slow < 3 * fast)


class Guide:
    """A recorded run, compared with the one that goes on."""

    def __init__(self, record: Run, fading: float = FADING) -> None:
        self.record = {step.key: step for step in record}
        self.places = {step.key: place for place, step in enumerate(record)}
        # Seconds from a step to the end: all of them, and those of steps that changed something.
        self.sums = [0.0]
        self.changing = [0.0]
        for step in reversed(record):
            self.sums.append(self.sums[-1] + step.seconds)
            self.changing.append(self.changing[-1] + step.seconds * step.changed)
        self.sums.reverse()
        self.changing.reverse()
        self.fading = fading
        self.weight = 0.0
        self.otherwise = 0.0
        self.confirmed = False
        self.place = 0

    def follow(self, step: Step) -> None:
        """Take a finished step of the run that goes on into account."""
        known = self.record.get(step.key)
        self.weight = self.weight * self.fading + 1
        self.otherwise = self.otherwise * self.fading + (not known or not alike(step, known))
        if known:
            self.place = self.places[step.key] + 1
            self.confirmed |= step.changed and known.changed

    @property
    def difference(self) -> float:
        """The share of the steps so far that went otherwise in the recorded run, or do not exist there.

        The last steps weigh most: a deployment that goes on where another one was interrupted begins like a run that
        changes nothing.
        """
        return self.otherwise / self.weight if self.weight else 0.0

    def left(self, current: Step | None) -> float | None:
        """Seconds that the recorded run took from here to its end; None where it does not tell."""
        known = self.record.get(current.key) if current else None
        if known and current:
            place = self.places[current.key]
            left = max(0.0, known.seconds - current.seconds) + self.sums[place + 1]
            late = current.seconds > 2 * known.seconds + PATIENCE
        else:
            place = self.place
            left = self.sums[place]
            late = bool(current and current.seconds > PATIENCE)
        # A first deployment is no guide before this run changed something that it changed, too.
        unconfirmed = not self.confirmed and self.changing[place] > left / 2
        return None if late or unconfirmed else left


def estimate(guides: Sequence[Guide], current: Step | None) -> float | None:
    """Seconds that are expected to be left; None where no recorded run is a guide, or where the guides disagree."""
    best = min((guide.difference for guide in guides), default=1.0)
    if best > TOLERANCE:
        return None
    told = [guide.left(current) for guide in guides if guide.difference <= best + MARGIN]
    left = [seconds for seconds in told if seconds is not None]
    if len(left) < len(told) or max(left) > 1.5 * min(left) + 10:
        return None
    # The newest record comes first.
    return left[0]


def difference(new: Run, record: Run) -> float:
    """The share of all steps of a run that went otherwise in a recorded one."""
    guide = Guide(record, fading=1.0)
    for step in new:
        guide.follow(step)
    return guide.difference


def merged(records: Sequence[Run], new: Run) -> list[Run]:
    """The runs to keep, the newest first: a new one takes the place of those like it."""
    others = [record for record in records if max(difference(new, record), difference(record, new)) > TOLERANCE]
    return [new, *others][:KEPT_RUNS]


def dump(records: Iterable[Run]) -> list[list[list[Any]]]:
    """Runs as JSON has them: [[[play, [[task, seconds, changed], ...]], ...], ...]."""
    runs = []
    for record in records:
        plays: list[list[Any]] = []
        for step in record:
            if not plays or plays[-1][0] != step.play:
                plays.append([step.play, []])
            plays[-1][1].append([step.task, round(step.seconds, 2), int(step.changed)])
        runs.append(plays)
    return runs


def parse(runs: Iterable[Any]) -> list[Run]:
    """Runs from JSON. Raises ValueError, TypeError where they are none."""
    records: list[Run] = []
    for plays in runs:
        record = run(
            (str(play), str(task), float(seconds), bool(changed))
            for play, tasks in plays
            for task, seconds, changed in tasks
        )
        if not all(math.isfinite(step.seconds) and step.seconds >= 0 for step in record):
            raise ValueError("a step's time is none")
        records.append(record)
    return records


def read(path: Path) -> list[Run]:
    """The recorded runs, the newest first. None where the file is missing or is not ours."""
    try:
        return parse(json.loads(path.read_text(encoding="utf-8"))["runs"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []


def write(path: Path, about: dict[str, Any], records: Iterable[Run]) -> None:
    """Record runs, and forget the files that were not written for longest. A run must not fail because of this."""
    text = json.dumps(about | {"runs": dump(records)}, separators=(",", ":")) + "\n"
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".new", delete=False) as file:
            temporary = Path(file.name)
            file.write(text)
        temporary.replace(path)
        age = {kept: kept.stat().st_mtime for kept in path.parent.glob("*.json")}
        for old in sorted(age, key=age.__getitem__)[:-KEPT_PROFILES]:
            old.unlink()
    except OSError:
        if temporary:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


class Recorder:
    """The clock of a run: which task has taken how long, and what earlier runs say of the rest."""

    def __init__(self, records: Iterable[Run] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self.guides = [Guide(record) for record in records]
        self.clock = clock
        self.started = clock()
        self.steps: list[Step] = []
        self.met: Counter[tuple[str, str]] = Counter()
        self.play = ""
        self.task: str | None = None
        self.task_started = 0.0
        self.changed = False

    @property
    def elapsed(self) -> float:
        return self.clock() - self.started

    @property
    def current(self) -> Step | None:
        """The task that runs, with its seconds so far."""
        if self.task is None:
            return None
        number = self.met[self.play, self.task]
        return Step(self.play, self.task, number, self.clock() - self.task_started, self.changed)

    @property
    def left(self) -> float | None:
        return estimate(self.guides, self.current)

    def begin(self, task: str) -> None:
        """A task starts, so the one before it is over."""
        self.end()
        self.task, self.task_started, self.changed = task, self.clock(), False

    def end(self) -> None:
        """No task runs any more."""
        if step := self.current:
            self.task = None
            self.steps.append(step)
            self.met[step.play, step.task] += 1
            for guide in self.guides:
                guide.follow(step)


# ---------------------------------------------------------------- text


def cells(text: str) -> int:
    """The columns of a terminal that a text takes."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def cut(text: str, width: int) -> str:
    """A text that takes at most so many columns."""
    if cells(text) <= width:
        return text
    mark = "..." if width > 6 else ""
    kept = ""
    for character in text:
        if cells(kept + character) > width - len(mark):
            break
        kept += character
    return kept + mark


def one_line(text: str) -> str:
    """A name without line breaks and whatever else moves the cursor."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def duration(seconds: float) -> str:
    """Minutes and seconds, hours where there are any."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def time_left(seconds: float) -> str:
    """An expected time, not more exact than it can be."""
    if seconds < 10:
        return "under 10 s left"
    if seconds < 100:
        return f"about {math.ceil(seconds / 10) * 10} s left"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"about {hours} h {minutes} min left" if hours else f"about {minutes} min left"


def some(hosts: Sequence[str], most: int = 3) -> str:
    """Names of hosts; a number and the first ones where there are many."""
    if len(hosts) <= most:
        return ", ".join(hosts)
    return f"{len(hosts)} hosts: {', '.join(hosts[: most - 1])} and {len(hosts) - most + 1} more"


def progress(
    width: int, elapsed: float, left: float | None, play: str, task: str, hosts: Sequence[str], check: bool = False
) -> str:
    """The progress line, cut to a width. What is worth most comes first; play and task share what room there is."""
    times = duration(elapsed) + (f", {time_left(left)}" if left is not None else "")
    start = ("CHECK MODE | " if check else "") + times
    working = some(hosts)
    if cells(working) > width // 4:
        working = f"{len(hosts)} hosts" if len(hosts) > 1 else cut(working, width // 4)
    play, task = one_line(play), one_line(task)
    room = width - sum(cells(part) + 3 for part in (start, working) if part) - (3 if task else 0)
    if cells(play) + cells(task) > room:
        play = cut(play, max(room - cells(task), room // 3))
        task = cut(task, max(room - cells(play), 0))
    return cut(" | ".join(part for part in (start, play, task, working) if part), width)


@dataclass
class Tally:
    """What happened in a play."""

    name: str
    check: bool
    started: float
    hosts: set[str] = field(default_factory=set)
    ok: int = 0
    changed: int = 0
    failed: int = 0
    unreachable: int = 0
    matched: bool = True

    def line(self, now: float) -> str | None:
        """The finished play in one line; None when nothing ran, such as with --tags."""
        name = one_line(self.name) + (" [CHECK MODE]" if self.check else "")
        if not self.matched:
            return f"{name}: no hosts matched"
        if not self.hosts:
            return None
        counts = [f"{self.ok} ok", f"{self.changed} changed"]
        counts += [f"{self.failed} failed"] * bool(self.failed)
        counts += [f"{self.unreachable} unreachable"] * bool(self.unreachable)
        return f"{name}: {some(sorted(self.hosts))}: {', '.join(counts)}, {duration(now - self.started)}"


@dataclass
class Change:
    """A task that changed something."""

    task: str
    check: bool
    hosts: set[str] = field(default_factory=set)
    items: int = 0
    all_items: int = 0
    diffs: list[tuple[str, str]] = field(default_factory=list)

    def line(self) -> str:
        verb = "would change" if self.check else "changed"
        items = f" ({self.items} of {self.all_items} items)" if self.all_items else ""
        return f"  {verb}: {one_line(self.task)}: {some(sorted(self.hosts))}{items}"


# ---------------------------------------------------------------- the terminal


class Line:
    """The last line of the terminal. It goes away before anything else is written, by whomever, and comes back after.

    Ansible itself replaces write() of the buffers below sys.stdout and sys.stderr, to hold its lock meanwhile. So does
    this, because everything that this process writes comes through there: display, warnings, prompts, print(). The lock
    is Ansible's, which it also holds while it forks: no worker begins with a half-written line or a lock of ours.
    """

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.out = sys.stdout.buffer
        self.encoding = sys.stdout.encoding
        self.write = self.out.write
        self.active = True
        self.shown = False
        self.last = b""
        # The cursor is at the beginning of a line.
        self.clean = True
        self.holds = 0
        os.register_at_fork(after_in_child=self.leave)
        for stream in (sys.stdout, sys.stderr):
            if stream.isatty():
                self.guard(stream.buffer)

    def leave(self) -> None:
        """Never write again: what is left is only what the guarded streams pass on."""
        self.active = False

    def guard(self, buffer: Any) -> None:
        """Let the line give way to what is written to a stream."""
        write = buffer.write

        def guarded(data: Any) -> Any:
            if not self.active:
                return write(data)
            with self.lock:
                self.erase()
                if data:
                    self.clean = bytes(data[-1:]) == b"\n"
                return write(data)

        buffer.write = guarded

    def held(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function during which there is no line, because it asks the operator something."""

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if not self.active:
                return function(*args, **kwargs)
            self.hold()
            try:
                return function(*args, **kwargs)
            finally:
                self.release()

        return wrapper

    def hold(self) -> None:
        with self.lock:
            self.holds += 1
            self.erase()

    def release(self) -> None:
        with self.lock:
            self.holds -= 1
            # An answer ends with a line feed that nobody here wrote.
            self.clean = True

    def in_foreground(self) -> bool:
        """Not after ^Z and bg, when the terminal is somebody else's."""
        try:
            return os.tcgetpgrp(self.out.fileno()) == os.getpgrp()
        except OSError:
            return True

    def width(self) -> int:
        """Columns to write to. In the last one, some terminals begin a new line."""
        try:
            columns = os.get_terminal_size(self.out.fileno()).columns
        except OSError:
            columns = 0
        # A terminal on a serial line says 0.
        return (columns or 80) - 1

    def draw(self, text: str) -> None:
        with self.lock:
            if not self.active or self.holds or not self.clean or not self.in_foreground():
                return
            data = b"\r" + text.encode(self.encoding, "replace") + b"\x1b[K"
            if not self.shown or data != self.last:
                self.shown, self.last = True, data
                self.put(data)

    def erase(self) -> None:
        with self.lock:
            if self.active and self.shown:
                self.shown = False
                self.put(b"\r\x1b[K")

    def put(self, data: bytes) -> None:
        try:
            self.write(data)
            self.out.flush()
        except OSError:
            # The terminal is gone; Ansible will find out by itself.
            self.leave()


# ---------------------------------------------------------------- the callback


class CallbackModule(DefaultCallback):
    """Entry point for Ansible."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "progress"

    def __init__(self) -> None:
        super().__init__()
        # None: plain output.
        self.line: Line | None = None
        self.recorder = Recorder()
        self.about: dict[str, Any] = {}
        self.profile: Path | None = None
        self.tally: Tally | None = None
        self.task = ""
        self.detail = ""
        self.working: dict[str, None] = {}
        self.changes: dict[str, Change] = {}
        self.holding = False
        self.ticker: threading.Thread | None = None
        self.stopped = threading.Event()

    # ------------------------------------------------------------ the line

    def set_options(self, task_keys: Any = None, var_options: Any = None, direct: Any = None) -> None:
        super().set_options(task_keys=task_keys, var_options=var_options, direct=direct)
        if self.line or not self.wants_line():
            return
        self.line = Line(self._display._lock)
        for name in ("prompt", "prompt_until"):
            setattr(self._display, name, self.line.held(getattr(self._display, name)))
        atexit.register(self.abandon)
        if context.CLIARGS.get("check"):
            self.set_option("check_mode_markers", True)

    def wants_line(self) -> bool:
        """Plain output unless there is a terminal that can erase a line, and somebody who did not ask for more."""
        return (
            sys.stdout.isatty()
            and hasattr(sys.stdout, "buffer")
            and os.environ.get("TERM", "dumb") != "dumb"
            and not self._display.verbosity
            and not self.get_option("plain")
        )

    def start(self) -> None:
        """Begin to redraw, also while nothing happens."""
        self.stop()
        self.stopped = threading.Event()
        self.ticker = threading.Thread(target=self.tick, args=(self.stopped,), name="progress", daemon=True)
        self.ticker.start()

    def tick(self, stopped: threading.Event) -> None:
        while not stopped.wait(max(0.01, self.get_option("refresh"))):
            self.redraw()

    def stop(self) -> None:
        """Leave the terminal as it was, at the end of a playbook or of the process."""
        self.stopped.set()
        if self.ticker:
            self.ticker.join(timeout=5)
            self.ticker = None
        if self.line:
            self.line.erase()

    def abandon(self) -> None:
        """The process ends. Where it was interrupted, what the last task changed is not shown yet."""
        self.show_changes()
        self.stop()

    def redraw(self) -> None:
        if not self.line or self.stopped.is_set():
            return
        # All of it under the lock: a fork, which takes it, then finds this thread idle.
        with self._display._lock:
            task = f"{self.task} ({self.detail})" if self.detail else self.task
            play = self.tally.name if self.tally else ""
            check = bool(context.CLIARGS.get("check"))
            self.line.draw(
                progress(
                    self.line.width(), self.recorder.elapsed, self.recorder.left, play, task, list(self.working), check
                )
            )

    def hold(self, wanted: bool) -> None:
        """Keep the line away, from before something is asked until the next task."""
        if self.line and wanted != self.holding:
            self.holding = wanted
            if wanted:
                self.line.hold()
            else:
                self.line.release()

    # ------------------------------------------------------------ lines that stay

    def show_changes(self) -> None:
        """Changed tasks, once all hosts have reported or something else is to be shown."""
        changes = [change for change in self.changes.values() if change.hosts]
        self.changes = {}
        for change in changes:
            self._display.display(change.line(), color=C.COLOR_CHANGED)
            for host, text in change.diffs:
                if len(change.hosts) > 1:
                    self._display.display(f"  {host}:")
                self._display.display(text)

    def finish_play(self) -> None:
        self.show_changes()
        tally, self.tally = self.tally, None
        if tally and (line := tally.line(self.recorder.clock())):
            color = C.COLOR_CHANGED if tally.changed else C.COLOR_OK
            self._display.display(line, color=C.COLOR_ERROR if tally.failed or tally.unreachable else color)

    def change(self, task: Any) -> Change:
        if task._uuid not in self.changes:
            name = self._last_task_name or task.get_name().strip()
            self.changes[task._uuid] = Change(name, bool(task.check_mode))
        return self.changes[task._uuid]

    def report(self, result: Any, count: str, failed: bool = False) -> None:
        """Count a host's result, and note what it changed. What failed is shown by itself."""
        host = result.host.get_name()
        with self._display._lock:
            self.working.pop(host, None)
            self.detail = ""
        if isinstance(result.task, TaskInclude):
            return
        changed = result.is_changed()
        self.recorder.changed |= changed
        if not self.line or not self.tally:
            return
        self.tally.hosts.add(host)
        setattr(self.tally, count, getattr(self.tally, count) + 1)
        if changed and count == "ok":
            self.tally.changed += 1
        if changed and not failed:
            change = self.change(result.task)
            change.hosts.add(host)
            if result.task.loop:
                items = result.result.get("results") or []
                change.all_items += len(items)
                change.items += sum(bool(isinstance(item, dict) and item.get("changed")) for item in items)
        if self._last_task_name is None:
            # Strategy free: hosts are at different tasks, so there is no end of a task to wait for.
            self.show_changes()

    def speaks(self, result: Any) -> bool:
        """Whether a task exists to say something."""
        return result.task.action in C._ACTION_DEBUG and bool(result.result.get("_ansible_verbose_always"))

    def _handle_warnings_and_exception(self, result: Any) -> None:
        # With no_log, Ansible 2.19 hides the result, but neither its error nor its warnings.
        if self.line and "censored" in result.result:
            for hidden in ("exception", "warnings", "deprecations"):
                result.result.pop(hidden, None)
        super()._handle_warnings_and_exception(result)

    # ------------------------------------------------------------ events of the run

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self.find_profile(playbook)
        self.recorder = Recorder(read(self.profile) if self.profile else ())
        super().v2_playbook_on_start(playbook)
        if self.line:
            self.start()

    def find_profile(self, playbook: Any) -> None:
        """Where runs of this playbook with this inventory, these hosts and these tags are recorded."""
        arguments = context.CLIARGS
        self.profile = None
        path = Path(playbook._file_name).resolve()
        directory = self.get_option("profiles")
        plays = playbook.get_plays()
        # From the middle of a playbook on: no complete run.
        if not plays or arguments.get("start_at_task") or not (directory or path.is_relative_to(PROJECT)):
            return
        inventory = plays[0].get_variable_manager()._inventory
        self.about = {
            "playbook": str(path),
            "inventory": [str(source) for source in arguments.get("inventory") or ()],
            "hosts": sorted(host.name for host in inventory.get_hosts(ignore_restrictions=True)) if inventory else [],
            "tags": sorted(arguments.get("tags") or ()),
            "skip_tags": sorted(arguments.get("skip_tags") or ()),
            "check": bool(arguments.get("check")),
        }
        digest = hashlib.sha256(json.dumps(self.about).encode()).hexdigest()[:12]
        self.profile = Path(directory or PROJECT / ".cache" / "progress") / f"{path.stem}-{digest}.json"

    def v2_playbook_on_vars_prompt(self, *args: Any, **kwargs: Any) -> None:
        # Nobody's time but the operator's.
        self.recorder.end()
        if self.line:
            self.finish_play()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self.recorder.end()
        self.recorder.play = play.get_name().strip()
        if not self.line:
            super().v2_playbook_on_play_start(play)
            return
        self.finish_play()
        self.hold(False)
        self._play = play
        with self._display._lock:
            self.tally = Tally(self.recorder.play, bool(play.check_mode), self.recorder.clock())
            self.task, self.working = "", {}
        self.redraw()

    def v2_playbook_on_no_hosts_matched(self) -> None:
        if not self.line:
            super().v2_playbook_on_no_hosts_matched()
        elif self.tally:
            self.tally.matched = False

    def _task_start(self, task: Any, prefix: str | None = None) -> None:
        # Of tasks as of handlers.
        self.recorder.begin(task.get_name().strip())
        if not self.line:
            super()._task_start(task, prefix=prefix)
            return
        self.show_changes()
        # The default callback's, without the banner that it shows at once where nothing is hidden.
        self._task_type_cache[task._uuid] = prefix or "TASK"
        free = self._play.strategy.rpartition(".")[2] in ("free", "host_pinned")
        self._last_task_name = None if free else task.get_name().strip()
        with self._display._lock:
            self.task, self.detail = task.get_name().strip(), ""
            if not free:
                self.working = {}
        # The debugger asks without telling anybody.
        self.hold(bool(C.ENABLE_TASK_DEBUGGER or task.debugger not in (None, "never")))
        self.redraw()

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        super().v2_runner_on_start(host, task)
        with self._display._lock:
            self.working[host.get_name()] = None
        self.redraw()

    def v2_playbook_on_include(self, included_file: Any) -> None:
        if not self.line:
            super().v2_playbook_on_include(included_file)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self.recorder.end()
        if self.line:
            self.finish_play()
            self.stop()
        super().v2_playbook_on_stats(stats)
        if self.profile and stats.processed and not stats.failures and not stats.dark:
            write(self.profile, self.about, merged(read(self.profile), self.recorder.steps))

    # ------------------------------------------------------------ events of a task

    def v2_runner_on_ok(self, result: Any) -> None:
        self.report(result, "ok")
        if not self.line or (self.speaks(result) and not result.task.loop):
            super().v2_runner_on_ok(result)
        else:
            self._handle_warnings_and_exception(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        if not self.line or self.speaks(result):
            super().v2_runner_item_on_ok(result)
        else:
            self._handle_warnings_and_exception(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self.report(result, "ok" if ignore_errors else "failed", failed=True)
        self.show_changes()
        super().v2_runner_on_failed(result, ignore_errors=ignore_errors)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        self.show_changes()
        super().v2_runner_item_on_failed(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self.report(result, "ok" if result.task.ignore_unreachable else "unreachable", failed=True)
        self.show_changes()
        super().v2_runner_on_unreachable(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        with self._display._lock:
            self.working.pop(result.host.get_name(), None)
        super().v2_runner_on_skipped(result)

    def v2_runner_retry(self, result: Any) -> None:
        if not self.line:
            super().v2_runner_retry(result)
            return
        with self._display._lock:
            left = result.result["retries"] - result.result["attempts"]
            self.detail = f"{left} {'retry' if left == 1 else 'retries'} left"
        self.redraw()

    def v2_runner_on_async_poll(self, result: Any) -> None:
        if not self.line:
            super().v2_runner_on_async_poll(result)

    def v2_runner_on_async_ok(self, result: Any) -> None:
        if not self.line:
            super().v2_runner_on_async_ok(result)

    def v2_on_file_diff(self, result: Any) -> None:
        if not self.line:
            super().v2_on_file_diff(result)
            return
        host = result.host.get_name()
        results = result.result.get("results") if result.task.loop else None
        for one in results or [result.result]:
            if not isinstance(one, dict) or not one.get("diff") or not one.get("changed"):
                continue
            if text := self._get_diff(one["diff"]):
                change = self.change(result.task)
                change.hosts.add(host)
                change.diffs.append((host, text))
