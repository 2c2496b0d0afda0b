# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""When and how runs are killed: random moments that follow from a seed and the tasks of site.yml."""

from __future__ import annotations

import bisect
import itertools
import math
import os
import random
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PLAYBOOK = [sys.executable, "-m", "ansible", "playbook"]

CUT, HOST = "cut", "host"
# Ansible's workers have their own sessions and outlive a signal to its process group. What runs on a host outlives the
# connection.
WAYS = {
    "SIGKILL": "kill ansible-playbook; its workers, and what they run on the host, continue",
    "SIGTERM": "ask ansible-playbook to end",
    "SIGINT": "press control-C",
    CUT: "kill ansible-playbook and everything it started on this computer, and cut its ssh connections",
    HOST: "the same, and kill what it runs on the host",
}

# Seconds that a task takes in a first deployment, where that is not about one, by the beginning of its name. An
# estimate: a moment after the end of a task is at its end.
TASK_SECONDS = {
    "lab : Set the state of the machine": 8.0,
    "base : Install packages": 130.0,
    "bridge : Configure the bridge": 5.0,
    "libvirt : Boot a throw-away guest": 3.0,
    "mariadb : Upgrade database schemas": 25.0,
    "keystone : Bootstrap the admin user": 9.0,
    "catalog : Register services": 4.0,
    "cells : Map cells": 6.0,
    "cells : Map computes": 15.0,
    "first_cloud : Create flavors": 30.0,
    "service : Start": 2.0,
    "verify : Check the APIs": 15.0,
}
# Limits the share of kills that the longest task gets.
MAXIMUM_WEIGHT = 30.0
# Tasks that only take an instant on the computer that runs Ansible.
INSTANT = (
    "Group",
    "Load",
    "Print",
    "Record changed",
    "Record how",
    "Record the compute",
    "Require",
    "Set preflight_facts",
)
WITHOUT_MOMENT = re.compile(rf"Validating arguments|(?:^|: )(?:{'|'.join(INSTANT)})")


@dataclass(frozen=True)
class Moment:
    """Seconds into a task, given by its position in the list, and how to end the run there."""

    index: int
    task: str
    seconds: float
    way: str


def parse_tasks(listing: str) -> list[str]:
    """Return the task names in the output of ansible-playbook --list-tasks, in order."""
    found = re.findall(r"^      (\S.*?)\tTAGS: ", listing, re.MULTILINE)
    return [name for name in found if name]


def list_tasks(inventory: Path) -> list[str]:
    """Return the task names of site.yml, in order."""
    command = [*PLAYBOOK, "-i", str(inventory), "--list-tasks", "site.yml"]
    environment = os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"chaos: cannot list the tasks of site.yml:\n{done.stdout}{done.stderr}")
    return parse_tasks(done.stdout)


def until(tasks: list[str], last: str) -> list[str]:
    """Return the tasks up to the last one whose name contains a text. Raise SystemExit if no name does."""
    places = [index for index, task in enumerate(tasks) if last in task]
    if not places:
        raise SystemExit(f"chaos: --until={last}: no task name of site.yml contains this (see --list-tasks).")
    return tasks[: places[-1] + 1]


def seconds_of(task: str) -> float:
    """Return about how long a task takes."""
    return next((seconds for start, seconds in TASK_SECONDS.items() if task.startswith(start)), 1.0)


def weight_of(task: str) -> float:
    """Return how likely a kill hits a task, relative to others."""
    return 0.0 if WITHOUT_MOMENT.search(task) else min(seconds_of(task), MAXIMUM_WEIGHT)


def draw(tasks: list[str], kills: int, per_life: int, seed: int) -> list[list[Moment]]:
    """Return the moments of each life: one in each of as many equal parts as there are kills, dealt out in turn."""
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
