# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Sizes of the lab, its inventory, and whether it fits on this computer. Nothing here runs anything."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LAB_NAME = "bench-scale"
CONTROLLER = "ctl1"

# The most that a machine takes, including the probe guest, and what stays free on the computer.
COMPUTE_MIB, COMPUTE_DISK_MIB = 1400, 3500
CONTROLLER_MIB, CONTROLLER_DISK_MIB = 4500, 6000
SIMULATED_MIB = 60
RESERVE_MIB, RESERVE_DISK_MIB = 1500, 5000


def sizes(text: str) -> list[int]:
    """Parse increasing numbers such as 1,2,4,8, for argparse."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1,2,4,8") from None
    if not numbers or numbers[0] < 1 or numbers != sorted(set(numbers)):
        raise argparse.ArgumentTypeError(f"{text!r} must be increasing numbers from 1")
    return numbers


def computes_up_to(count: int) -> list[str]:
    """Return the names of the first computes."""
    return [f"cmp{number}" for number in range(1, count + 1)]


def inventory(project: Path, computes: Sequence[str]) -> dict[str, Any]:
    """Return the content of hosts.yml. New machines come last: the address depends on the position."""
    lab = {"lab_name": LAB_NAME, "lab_project_directory": str(project)}
    # Its default changes with the second compute, on all hosts.
    fixed = {"nova_resize_to_same_host": False}
    return {
        "all": {
            "children": {
                "lab": {"vars": lab, "hosts": dict.fromkeys([CONTROLLER, *computes])},
                "controller": {"vars": fixed, "hosts": {CONTROLLER: None}},
                "compute": {"vars": fixed, "hosts": dict.fromkeys(computes)},
            }
        }
    }


def growth_steps(present: int, wanted: int) -> list[tuple[str, list[str]]]:
    """Return the runs from one size to a larger one: all new computes but the last, then the last alone."""
    new = computes_up_to(wanted)[present:]
    steps = [("fill", new[:-1]), ("add", new[-1:])]
    return [(kind, hosts) for kind, hosts in steps if hosts]


def memory_available_mib(meminfo: str) -> int:
    """Return the available memory, from /proc/meminfo."""
    fields = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    return int(fields["MemAvailable"].split()[0]) // 1024


def shortage(memory_mib: int, disk_mib: int, needed_mib: int, needed_disk_mib: int) -> str:
    """Return why the next step does not fit on this computer; empty if it does."""
    if memory_mib < needed_mib + RESERVE_MIB:
        return f"{memory_mib} MiB of memory are available, {needed_mib} MiB and {RESERVE_MIB} MiB in reserve are needed"
    if disk_mib < needed_disk_mib + RESERVE_DISK_MIB:
        return (
            f"{disk_mib} MiB of disk are free, {needed_disk_mib} MiB and {RESERVE_DISK_MIB} MiB in reserve are needed"
        )
    return ""


def changed_hosts(record: dict[str, Any]) -> dict[str, list[str]]:
    """Return the tasks that changed something in a run, by host."""
    return {name: host["changed_tasks"] for name, host in record["hosts"].items() if host["changed"]}
