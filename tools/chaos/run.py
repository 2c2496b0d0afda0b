# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""One run of ansible-playbook, followed by what it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from tools.chaos.moments import PROJECT, Moment

# A signal that arrives while Ansible forks a worker can make it wait forever.
END_SECONDS = 15.0
RUN_SECONDS = 3600.0
LAST_LINES = 40

BANNER = re.compile(r"^(TASK|RUNNING HANDLER|PLAY) \[(.*)\] \**$")
RECAP = re.compile(r"^(\S+) +: ((?:\w+=\d+ *)+)$")


def pattern_of(task: str) -> re.Pattern[str]:
    """Return a pattern for what a listed task prints: expressions in its name have values in a run."""
    parts = re.split(r"\{\{.*?\}\}", task)
    return re.compile(".*".join(map(re.escape, parts)))


class Watch:
    """Follow the position of a run in the list of tasks."""

    def __init__(self, tasks: list[str]) -> None:
        self.patterns = [pattern_of(task) for task in tasks]
        self.position = -1
        self.play = self.task = ""
        self.since = 0.0

    def see(self, line: str, now: float) -> None:
        """Take in a line of output."""
        banner = BANNER.match(line)
        if not banner:
            return
        if banner[1] == "PLAY":
            self.play = banner[2]
            return
        self.task = banner[2]
        # Names repeat, in the order of the list. A task that is not listed counts as part of the task before it.
        for index in range(self.position + 1, len(self.patterns)):
            if self.patterns[index].fullmatch(self.task):
                self.position, self.since = index, now
                return

    @property
    def where(self) -> str:
        """The running play and task."""
        task = self.task.partition(" (")[0]
        return f"{self.play or 'before the first play'}: {task or '(no task yet)'}"


def parse_recap(output: str) -> dict[str, dict[str, int]]:
    """Return the numbers of the PLAY RECAP by host; {} if the run printed none."""
    found = {}
    for line in output.rpartition("PLAY RECAP")[2].splitlines() if "PLAY RECAP" in output else ():
        match = RECAP.match(line.strip())
        if match:
            pairs = (pair.split("=") for pair in match[2].split())
            found[match[1]] = {name: int(number) for name, number in pairs}
    return found


def total_of(recap: dict[str, dict[str, int]], name: str) -> int:
    """Return the sum of one number over all hosts."""
    return sum(numbers.get(name, 0) for numbers in recap.values())


class Run:
    """An ansible-playbook in its own process group."""

    def __init__(self, log: Path, tasks: list[str], command: list[str]) -> None:
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            # Otherwise Ansible prints the name of a task with its first result.
            "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "true",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
        }
        self.log = log
        self.watch = Watch(tasks)
        self.started = time.monotonic()
        self.ended = False
        self.news = threading.Condition()
        log.parent.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        with self.log.open("w") as log:
            for line in self.process.stdout or ():
                log.write(line)
                log.flush()
                with self.news:
                    self.watch.see(line.rstrip("\n"), time.monotonic())
                    self.news.notify_all()
        with self.news:
            self.ended = True
            self.news.notify_all()

    def reaches(self, moment: Moment) -> bool:
        """Wait for the moment or the end of its task. Return False if the run ended before."""
        with self.news:
            while not self.ended:
                position = self.watch.position
                left = self.watch.since + moment.seconds - time.monotonic()
                if position > moment.index or (position == moment.index and left <= 0):
                    return True
                self.news.wait(left if position == moment.index else None)
        return False

    def finish(self, timeout: float = RUN_SECONDS) -> int:
        """Wait for the end of the run and return its exit code."""
        code = self.process.wait(timeout)
        self.reader.join(END_SECONDS)
        return code

    @property
    def seconds(self) -> float:
        """The time since the start."""
        return round(time.monotonic() - self.started, 1)

    @property
    def output(self) -> str:
        """Everything printed so far."""
        return self.log.read_text(errors="replace")

    def last_lines(self) -> str:
        """Return the end of the output."""
        return "\n".join(self.output.rstrip().splitlines()[-LAST_LINES:])
