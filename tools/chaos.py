# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Kill a first deployment at random moments, and see that the next run always converges.

The moments follow from the seed and the list of tasks: one at random in each of as many equal parts of the deployment
as there are kills. A machine is not deployed anew for each of them: it is killed, resumed, killed further on, and so
on, then deployed to the end, deployed once more to see that nothing changes, and checked. That is one life; its kills
are spread over the whole deployment. See docs/operate/interruption.md.

Works on a lab of its own, or with --inventory on another lab, and on no other hosts.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import hashlib
import itertools
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parent.parent
CACHE = PROJECT / ".cache" / "chaos"
LAB_STATE = Path("/var/lib/kilonova/lab")
HOST_TESTS = ["tests/host/test_interruption.py", "tests/host/test_units.py"]
PLAYBOOK = [sys.executable, "-m", "ansible", "playbook"]
# Below a host's root. While one of them is written, its name is another.
KEYS = ("etc/keystone/*-keys/*[0-9]", "etc/pki/**/[!.]*.pem", "root/.ssh/kilonova_id_ed25519")

# How a run is ended. Ansible's workers have sessions of their own: they outlive a signal to its process group, and what
# runs on a host outlives the connection.
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
CUT, HOST = "cut", "host"
WAYS = {
    "SIGKILL": "ansible-playbook is killed; its workers, and what they run on the host, go on",
    "SIGTERM": "it is asked to end",
    "SIGINT": "somebody typed control-C",
    CUT: "it is killed with all that it started on this computer, and its ssh connections are cut",
    HOST: "the same, and what it runs on the host is killed as well",
}
# A signal that meets Ansible while it forks a worker can leave it waiting for good.
END_SECONDS = 15.0
RUN_SECONDS = 3600.0
LAST_LINES = 40

# What a task takes in a first deployment, in seconds, where that is not about one. The words are the beginning of its
# name as --list-tasks prints it. Good to the factor two: a moment behind a task's real end is at its end.
TASK_SECONDS = {
    "lab : Set the state of the machine": 8.0,
    "base : Install the packages of every service": 130.0,
    "bridge : Put the bridge over the interface": 5.0,
    "libvirt : Boot a throw-away guest": 3.0,
    "mariadb : Bring the database schemas": 25.0,
    "keystone : Give the administrator an account": 9.0,
    "catalog : Register every service": 4.0,
    "cells : Map the cells": 6.0,
    "cells : Wait for the computes": 15.0,
    "first_cloud : Provide flavors": 30.0,
    "service : Start": 2.0,
    "verify : Look at the cloud, reach its guest": 15.0,
}
# So that the longest task does not draw a third of all kills.
HEAVIEST = 30.0
# Work of the computer that runs Ansible, done before the task's name is on the screen for long.
WITHOUT_MOMENT = re.compile(r"Validating arguments|(?:^|: )(?:Remember what|Stop when|Report what|Get the logs)")
BANNER = re.compile(r"^(TASK|RUNNING HANDLER|PLAY) \[(.*)\] \**$")
RECAP = re.compile(r"^(\S+) +: ((?:\w+=\d+ *)+)$")


# ---------------------------------------------------------------- moments
@dataclass(frozen=True)
class Moment:
    """So many seconds into a task (by its position in the list), and how the run is ended there."""

    index: int
    task: str
    seconds: float
    way: str


def parse_tasks(listing: str) -> list[str]:
    """The names in the output of ansible-playbook --list-tasks, in order."""
    found = re.findall(r"^      (\S.*?)\tTAGS: ", listing, re.MULTILINE)
    return [name for name in found if name]


def seconds_of(task: str) -> float:
    return next((seconds for start, seconds in TASK_SECONDS.items() if task.startswith(start)), 1.0)


def weight_of(task: str) -> float:
    return 0.0 if WITHOUT_MOMENT.search(task) else min(seconds_of(task), HEAVIEST)


def draw(tasks: list[str], kills: int, per_life: int, seed: int) -> list[list[Moment]]:
    """The moments of each life: one in each of as many equal parts as there are kills, dealt out to lives in turn."""
    rng = random.Random(seed)
    weights = [weight_of(task) for task in tasks]
    ends = list(itertools.accumulate(weights))
    ways = [list(WAYS)[number % len(WAYS)] for number in range(kills)]
    rng.shuffle(ways)
    moments = []
    for number in range(kills):
        place = (number + rng.random()) / kills * ends[-1]
        index = bisect.bisect_right(ends, place)
        share = (place - ends[index] + weights[index]) / weights[index]
        moments.append(Moment(index, tasks[index], round(share * seconds_of(tasks[index]), 2), ways[number]))
    lives = math.ceil(kills / per_life)
    return [moments[life::lives] for life in range(lives)]


# ---------------------------------------------------------------- one run
def pattern_of(task: str) -> re.Pattern[str]:
    """What a listed task prints as: the list shows expressions in names, a run their values."""
    parts = re.split(r"\{\{.*?\}\}", task)
    return re.compile(".*".join(map(re.escape, parts)))


class Watch:
    """Where a run is, by what it prints."""

    def __init__(self, tasks: list[str]) -> None:
        self.patterns = [pattern_of(task) for task in tasks]
        self.position = -1  # in the list
        self.play = self.task = ""
        self.since = 0.0

    def see(self, line: str, now: float) -> None:
        banner = BANNER.match(line)
        if not banner:
            return
        if banner[1] == "PLAY":
            self.play = banner[2]
            return
        self.task = banner[2]
        # Names occur more than once, in the order of the list; what is not listed belongs to the task before it.
        for index in range(self.position + 1, len(self.patterns)):
            if self.patterns[index].fullmatch(self.task):
                self.position, self.since = index, now
                return

    @property
    def where(self) -> str:
        task = self.task.partition(" (")[0]
        return f"{self.play or 'before the first play'}: {task or '(no task yet)'}"


def parse_recap(output: str) -> dict[str, dict[str, int]]:
    """The numbers of the PLAY RECAP by host; {} for a run that never came so far."""
    found = {}
    for line in output.rpartition("PLAY RECAP")[2].splitlines() if "PLAY RECAP" in output else ():
        match = RECAP.match(line.strip())
        if match:
            pairs = (pair.split("=") for pair in match[2].split())
            found[match[1]] = {name: int(number) for name, number in pairs}
    return found


def total_of(recap: dict[str, dict[str, int]], name: str) -> int:
    return sum(numbers.get(name, 0) for numbers in recap.values())


class Run:
    """One ansible-playbook in a process group of its own."""

    def __init__(self, log: Path, tasks: list[str], command: list[str]) -> None:
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            # Else the name of a task is printed when its first result is there.
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
        """Wait for the moment, or for the task's end where that comes first. False when the run ended before."""
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
        return round(time.monotonic() - self.started, 1)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def last_lines(self) -> str:
        return "\n".join(self.output.rstrip().splitlines()[-LAST_LINES:])


# ---------------------------------------------------------------- ending it
def descendants(parents: dict[int, int], root: int) -> list[int]:
    """All processes that a process started, directly or not, of {process: parent}."""
    found, queue = [], [root]
    while queue:
        above = queue.pop()
        children = [pid for pid, parent in parents.items() if parent == above]
        found += children
        queue += children
    return found


def parents() -> dict[int, int]:
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            found[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    return found


def of_a_session(cgroup: str) -> bool:
    """Whether the text of /proc/PID/cgroup is that of a login or of something started by one."""
    return bool(re.search(r"/(?:sshd?(?:@[^/]*)?\.service|session-[^/]*\.scope)(?:/|$)", cgroup, re.MULTILINE))


@dataclass
class Lab:
    """The lab that an inventory describes, as this computer sees it."""

    inventory: Path
    name: str
    machines: list[str]

    @classmethod
    def of(cls, inventory: Path) -> Lab:
        """Raises SystemExit for an inventory whose hosts are not a lab's."""
        text = (inventory / "hosts.yml").read_text() if inventory.is_dir() else inventory.read_text()
        groups = yaml.safe_load(text)["all"]["children"]
        lab = groups.get("lab") or {}
        hosts = {host for group in groups.values() for host in group.get("hosts") or {}}
        if "lab_name" not in lab.get("vars", {}) or hosts != set(lab["hosts"]):
            raise SystemExit(f"chaos: {inventory} has hosts that are not a lab's. Only a lab may be killed.")
        return cls(inventory, lab["vars"]["lab_name"], list(lab["hosts"]))

    @property
    def directory(self) -> Path:
        if str(PROJECT) not in sys.path:
            sys.path.insert(0, str(PROJECT))
        from plugins.filter.lab import lab_id

        return LAB_STATE / lab_id(str(PROJECT), self.name)

    @property
    def roots(self) -> list[Path]:
        return [self.directory / "machines" / name / "root" for name in self.machines]

    def connections(self) -> Iterator[int]:
        """The shared ssh connections, which outlive the run that opened them."""
        marker = f"{self.directory}/connections/"
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().decode(errors="replace")
                if marker in words and words.startswith("ssh"):
                    yield int(path.parent.name)

    def sessions(self) -> Iterator[int]:
        """What runs on the machines on behalf of a connection, without the ssh server itself."""
        above = parents()
        for root in self.roots:
            with contextlib.suppress(OSError):
                identity = root.stat()
                inside = [pid for pid in above if same_root(pid, identity)]
                for pid in inside:
                    # The server is a child of the machine's PID 1, whose own parent is outside.
                    server = above.get(above[pid]) not in inside
                    if not server and of_a_session(Path(f"/proc/{pid}/cgroup").read_text()):
                        yield pid


def same_root(pid: int, identity: os.stat_result) -> bool:
    try:
        root = os.stat(f"/proc/{pid}/root")
    except OSError:
        return False
    return (root.st_dev, root.st_ino) == (identity.st_dev, identity.st_ino)


def kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def strike(run: Run, way: str, lab: Lab) -> None:
    """End a run."""
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


# ---------------------------------------------------------------- what must not change
class Steady:
    """Files that are written once: keys and secrets."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.first: dict[str, str] = {}

    def files(self) -> dict[str, str]:
        """Their checksums, by a name."""
        secrets = self.lab.inventory / "group_vars" / "all" / "secrets.yml"
        found = {str(secrets.relative_to(self.lab.inventory)): secrets} if secrets.exists() else {}
        for root in self.lab.roots:
            paths = [path for pattern in KEYS for path in root.glob(pattern)]
            found |= {f"{root.parent.name}:/{path.relative_to(root)}": path for path in paths}
        return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()}

    def look(self) -> list[str]:
        """What is not as it was first seen."""
        now = self.files()
        changed = [name for name, digest in self.first.items() if now.get(name) != digest]
        self.first = now | self.first
        return [f"{name} {'changed' if name in now else 'is gone'}" for name in changed]


# ---------------------------------------------------------------- the whole
@dataclass
class Kill:
    """One row of the table."""

    number: int
    life: int
    planned: str
    way: str
    second: float = 0.0
    where: str = ""
    next: str = ""
    passed: bool = False


@dataclass
class Check:
    """One more result of a life."""

    life: int
    name: str
    passed: bool
    seconds: float = 0.0
    text: str = ""


class Finding(Exception):
    """A run or check that failed by itself."""


@dataclass
class Chaos:
    lab: Lab
    tasks: list[str]
    seed: int
    keep_going: bool
    logs: Path
    kills: list[Kill] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    runs: int = 0

    def say(self, text: str) -> None:
        print(f"chaos: {time.strftime('%H:%M:%S')} {text}", flush=True)

    def run(self, life: int, playbook: str = "site.yml") -> Run:
        self.runs += 1
        name = playbook.replace("/", "-").removesuffix(".yml")
        command = [*PLAYBOOK, "-i", str(self.lab.inventory), playbook]
        return Run(self.logs / f"{life}-{self.runs:02}-{name}.log", self.tasks, command)

    def found(self, text: str) -> None:
        """Record what must not be; raises Finding unless the rest is wanted all the same."""
        self.findings.append(text)
        self.say(f"FOUND {text}")
        if not self.keep_going:
            raise Finding(text)

    def check(self, life: int, name: str, passed: bool, text: str, seconds: float = 0.0) -> None:
        self.checks.append(Check(life, name, passed, seconds, "" if passed else text))
        self.say(f"life {life}: {name}: {'passed' if passed else 'FAILED'}{f' ({seconds:.0f} s)' if seconds else ''}")
        if not passed:
            self.found(f"life {life}: {name}: {text}")

    def settle(self, result: str, passed: bool) -> None:
        """Fill in what became of the kill before, now that the run after it has ended in some way."""
        for row in self.kills:
            if not row.next:
                row.next, row.passed = result, passed

    def strike_at(self, life: int, moment: Moment, steady: Steady) -> None:
        """A run that is ended at a moment."""
        run = self.run(life)
        row = Kill(len(self.kills) + 1, life, f"{moment.seconds:g} s into {moment.task}", moment.way)
        reached = run.reaches(moment)
        row.second, row.where = run.seconds, run.watch.where
        if reached:
            # In this order, because what is killed comes after what the run before it was killed for.
            self.settle("went on", True)
            strike(run, moment.way, self.lab)
            self.kills.append(row)
            self.say(f"{row.number:2} life {life}: {row.way} after {row.second:.0f} s, in {row.where}")
        else:
            code = run.finish()
            failed = code != 0
            self.settle("failed" if failed else "converged", not failed)
            row.next, row.passed = "the run ended before its moment", False
            self.kills.append(row)
            self.found(
                f"the run for kill {row.number} ended by itself ({code}) before {row.planned}:\n{run.last_lines()}"
            )
        for text in steady.look():
            self.found(f"after kill {row.number}: {text}")

    def deploy(self, life: int, name: str, unchanged: bool) -> bool:
        """A run to the end. Returns whether it did what it must."""
        run = self.run(life)
        code, seconds = run.finish(), run.seconds
        recap = parse_recap(run.output)
        bad = total_of(recap, "failed") + total_of(recap, "unreachable")
        passed = code == 0 and bool(recap) and not bad and not (unchanged and total_of(recap, "changed"))
        self.settle("converged" if passed else "failed", passed)
        text = f"exit code {code}, {recap or 'no recap'}; see {run.log}\n{run.last_lines()}"
        self.check(life, name, passed, text, seconds)
        return passed

    def live(self, life: int, moments: list[Moment], leave: bool) -> None:
        """One machine from bare to checked."""
        steady = Steady(self.lab)
        for moment in moments:
            self.strike_at(life, moment, steady)
        if leave:
            self.settle("(left)", True)
            return
        if self.deploy(life, "the next run converges", unchanged=False):
            self.deploy(life, "one more run changes nothing", unchanged=True)
        texts = steady.look()
        self.check(life, "keys and secrets are those first seen", bool(steady.first) and not texts, "; ".join(texts))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--quiet", *HOST_TESTS, f"--ansible-inventory={self.lab.inventory}"],
            cwd=PROJECT,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        self.check(life, "nothing twice, nothing half", done.returncode == 0, done.stdout + done.stderr)

    def destroy(self, life: int) -> None:
        run = self.run(life, "playbooks/destroy.yml")
        if run.finish():
            raise Finding(f"the lab was not removed:\n{run.last_lines()}")

    # -------------------------------------------------------------- the end
    def table(self) -> str:
        lines = [f"{'no':>2} {'life':>4} {'second':>6}  {'how':<8} {'next run':<10} phase and task that was running"]
        for row in self.kills:
            lines.append(
                f"{row.number:>2} {row.life:>4} {row.second:>6.0f}  {row.way:<8} {row.next:<10} {row.where}"
                + ("" if row.passed else "   <-- FAILED")
            )
        for check in self.checks:
            lines.append(f"life {check.life}: {check.name}: {'passed' if check.passed else 'FAILED'}")
        return "\n".join(lines)

    @property
    def failed(self) -> int:
        passed = [row.passed for row in self.kills] + [check.passed for check in self.checks]
        return passed.count(False)

    def record(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "passed": len(self.kills) + len(self.checks) - self.failed,
            "failed": self.failed,
            "kills": [asdict(row) for row in self.kills],
            "checks": [asdict(check) for check in self.checks],
            "findings": self.findings,
        }


def own_inventory() -> Path:
    """An inventory like the lab's, for a lab of its own."""
    inventory = CACHE / "inventory"
    (inventory / "group_vars" / "all").mkdir(parents=True, exist_ok=True)
    groups = {
        "lab": {
            "vars": {"lab_name": "chaos", "lab_project_directory": str(PROJECT)},
            "hosts": {"chaos1": None},
        },
        "controller": {"hosts": {"chaos1": None}},
        "compute": {"hosts": {"chaos1": None}},
    }
    (inventory / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}, sort_keys=False))
    shared = PROJECT / "inventory" / "lab" / "group_vars" / "lab.yml"
    (inventory / "group_vars" / "lab.yml").write_text(shared.read_text())
    return inventory


def list_tasks(inventory: Path) -> list[str]:
    command = [*PLAYBOOK, "-i", str(inventory), "--list-tasks", "site.yml"]
    environment = os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"chaos: the tasks of site.yml cannot be listed:\n{done.stdout}{done.stderr}")
    return parse_tasks(done.stdout)


def until(tasks: list[str], last: str) -> list[str]:
    """The tasks up to the last one whose name contains a text; all of them where it is empty."""
    places = [index for index, task in enumerate(tasks) if last in task]
    if not places:
        raise SystemExit(f"chaos: no task's name contains {last!r}")
    return tasks[: places[-1] + 1]


def main() -> int:
    """Kill, resume, check, and report. Returns how many things failed, at most 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-life", type=int, default=5, help="kills before a new, bare machine")
    parser.add_argument("--until", default="", metavar="TEXT", help="no kill after the last task with this in its name")
    parser.add_argument("--inventory", type=Path, help="an inventory of another lab")
    parser.add_argument("--output", type=Path, default=CACHE, help="directory for the result and the runs' output")
    parser.add_argument("--leave", action="store_true", help="end after the last kill: the caller deploys the rest")
    parser.add_argument("--keep", action="store_true", help="leave the last machine")
    parser.add_argument("--keep-going", action="store_true", help="record what is found and go on")
    arguments = parser.parse_args()
    lab = Lab.of(arguments.inventory.resolve() if arguments.inventory else own_inventory())
    tasks = list_tasks(lab.inventory)
    lives = draw(until(tasks, arguments.until), arguments.kills, arguments.per_life, arguments.seed)
    chaos = Chaos(lab, tasks, arguments.seed, arguments.keep_going, arguments.output.resolve() / "logs")
    record = arguments.output.resolve() / f"seed{arguments.seed}.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    for old in chaos.logs.glob("*.log"):
        old.unlink()
    chaos.say(f"{arguments.kills} kills in {len(lives)} lives, seed {arguments.seed}, logs in {chaos.logs}")
    try:
        for life, moments in enumerate(lives, 1):
            if not arguments.inventory:
                # Bare also means: without the secrets of the machine before.
                chaos.destroy(life)
                (lab.inventory / "group_vars" / "all" / "secrets.yml").unlink(missing_ok=True)
            chaos.live(life, moments, arguments.leave)
            record.write_text(json.dumps(chaos.record(), indent=1) + "\n")
        if not (arguments.inventory or arguments.keep or arguments.leave):
            chaos.destroy(len(lives))
    except Finding:
        chaos.settle("not known", False)
        chaos.say("stopped; the machine is left for a look (--keep-going records and goes on)")
    record.write_text(json.dumps(chaos.record(), indent=1) + "\n")
    print(f"\n{chaos.table()}\n{record}")
    print(f"{len(chaos.kills) + len(chaos.checks) - chaos.failed} passed, {chaos.failed} failed", flush=True)
    return int(bool(chaos.failed or chaos.findings))


if __name__ == "__main__":
    sys.exit(main())
