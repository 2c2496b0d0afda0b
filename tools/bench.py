# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Run site.yml, then show and record which tasks took how long.

The times are those of the callback ansible.posix.profile_tasks: seconds of wall clock from a task's start to the
next one's. One run is one measurement; compare runs on the same, otherwise idle, computer. For a deployment from
nothing: make destroy bench.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
# "role : Name of the task ------------------ 12.34s", after this heading
RECAP = "TASKS RECAP"
TASK_LINE = re.compile(r"^(?P<task>.+?) -* ?(?P<seconds>\d+\.\d\d)s$")


def parse_profile(output: str) -> list[tuple[str, float]]:
    """Tasks and their seconds, in the order they ran, from what profile_tasks prints at the end of a run."""
    recap = output.rpartition(RECAP)[2] if RECAP in output else ""
    return [(match["task"], float(match["seconds"])) for match in map(TASK_LINE.match, recap.splitlines()) if match]


def table(tasks: list[tuple[str, float]], total: float, rows: int) -> str:
    """The slowest tasks as text, with each one's share of the total."""
    slowest = sorted(tasks, key=lambda entry: -entry[1])
    lines = [f"{seconds:8.1f} s {seconds / total:6.1%}  {task}" for task, seconds in slowest[:rows]]
    rest = sum(seconds for _, seconds in slowest[rows:])
    if len(tasks) > rows:
        lines.append(f"{rest:8.1f} s {rest / total:6.1%}  the other {len(tasks) - rows} tasks")
    return "\n".join([*lines, f"{total:8.1f} s  100.0%  in all"])


def run(inventory: str) -> tuple[int, str, float]:
    """Run site.yml and pass its output on. Returns its exit code, its output and its seconds."""
    environment = os.environ | {
        "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks",
        "PROFILE_TASKS_TASK_OUTPUT_LIMIT": "all",
        "PROFILE_TASKS_SORT_ORDER": "none",
        "ANSIBLE_NOCOLOR": "1",
    }
    command = [sys.executable, "-m", "ansible", "playbook", "-i", inventory, "site.yml"]
    start = time.monotonic()
    output = []
    with subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            output.append(line)
    return process.returncode, "".join(output), time.monotonic() - start


def main() -> int:
    """Measure one run, print the table and write the JSON. Returns the playbook's exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inventory", default="inventory/lab")
    parser.add_argument("--rows", type=int, default=25, help="how many tasks the table shows")
    arguments = parser.parse_args()
    code, output, total = run(arguments.inventory)
    tasks = parse_profile(output)
    record = PROJECT / ".cache" / "bench" / time.strftime("%Y%m%dT%H%M%S.json")
    record.parent.mkdir(parents=True, exist_ok=True)
    content = {"inventory": arguments.inventory, "exit_code": code, "seconds": round(total, 1), "tasks": tasks}
    record.write_text(json.dumps(content, indent=1) + "\n")
    print(f"\n{table(tasks, total, arguments.rows)}\n{record.relative_to(PROJECT)}")
    return code


if __name__ == "__main__":
    sys.exit(main())
