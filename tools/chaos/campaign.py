# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Kill, resume and check deployments, and record the results."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tools.chaos.lab import Lab, Steady
from tools.chaos.moments import PLAYBOOK, PROJECT, Moment
from tools.chaos.run import Run, parse_recap, total_of
from tools.chaos.strike import strike

HOST_TESTS = ["tests/host/test_interruption.py", "tests/host/test_units.py"]


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
    """The result of a check at the end of a life."""

    life: int
    name: str
    passed: bool
    seconds: float = 0.0
    text: str = ""


class Finding(Exception):
    """A run or check that failed by itself."""


@dataclass
class Chaos:
    """The kills and checks of one call."""

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
        """Print a line of progress."""
        print(f"chaos: {time.strftime('%H:%M:%S')} {text}", flush=True)

    def run(self, life: int, playbook: str = "site.yml") -> Run:
        """Start a playbook."""
        self.runs += 1
        name = playbook.replace("/", "-").removesuffix(".yml")
        command = [*PLAYBOOK, "-i", str(self.lab.inventory), playbook]
        return Run(self.logs / f"{life}-{self.runs:02}-{name}.log", self.tasks, command)

    def found(self, text: str) -> None:
        """Record a finding. Raise Finding unless keep_going is set."""
        self.findings.append(text)
        self.say(f"FOUND {text}")
        if not self.keep_going:
            raise Finding(text)

    def check(self, life: int, name: str, passed: bool, text: str, seconds: float = 0.0) -> None:
        """Record the result of a check."""
        self.checks.append(Check(life, name, passed, seconds, "" if passed else text))
        self.say(f"life {life}: {name}: {'passed' if passed else 'FAILED'}{f' ({seconds:.0f} s)' if seconds else ''}")
        if not passed:
            self.found(f"life {life}: {name}: {text}")

    def settle(self, result: str, passed: bool) -> None:
        """Record the result of the run after the last kill."""
        for row in self.kills:
            if not row.next:
                row.next, row.passed = result, passed

    def strike_at(self, life: int, moment: Moment, steady: Steady) -> None:
        """Start a run and end it at a moment."""
        run = self.run(life)
        row = Kill(len(self.kills) + 1, life, f"{moment.seconds:g} s into {moment.task}", moment.way)
        reached = run.reaches(moment)
        row.second, row.where = run.seconds, run.watch.where
        if reached:
            # First, because this kill comes after the place of the kill before.
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
        """Run site.yml to its end. Return whether it passed."""
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
        """Take one machine from bare to checked."""
        steady = Steady(self.lab)
        for moment in moments:
            self.strike_at(life, moment, steady)
        if leave:
            self.settle("(left)", True)
            return
        if self.deploy(life, "the next run converges", unchanged=False):
            self.deploy(life, "one more run changes nothing", unchanged=True)
        texts = steady.look()
        self.check(life, "keys and secrets are unchanged", bool(steady.first) and not texts, "; ".join(texts))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--quiet", *HOST_TESTS, f"--ansible-inventory={self.lab.inventory}"],
            cwd=PROJECT,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        self.check(life, "no duplicates, nothing half done", done.returncode == 0, done.stdout + done.stderr)

    def destroy(self, life: int) -> None:
        """Remove the lab."""
        run = self.run(life, "playbooks/destroy.yml")
        if run.finish():
            raise Finding(f"the lab was not removed:\n{run.last_lines()}")

    def table(self) -> str:
        """Return all kills and checks as text."""
        lines = [f"{'no':>2} {'life':>4} {'second':>6}  {'how':<8} {'next run':<10} running play and task"]
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
        """How many kills and checks failed."""
        passed = [row.passed for row in self.kills] + [check.passed for check in self.checks]
        return passed.count(False)

    def record(self) -> dict[str, Any]:
        """Return everything as data."""
        return {
            "seed": self.seed,
            "passed": len(self.kills) + len(self.checks) - self.failed,
            "failed": self.failed,
            "kills": [asdict(row) for row in self.kills],
            "checks": [asdict(check) for check in self.checks],
            "findings": self.findings,
        }
