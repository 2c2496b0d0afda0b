# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Print the state of a host as JSON: host_state.py units, or host_state.py memory SECONDS.

Runs on the host with the Python of the host, and changes nothing.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# Units of logins, which come and go with the connection of the benchmark.
OF_LOGINS = re.compile(r"user@|user-runtime-dir@|session-")
GUEST = "qemu-system"
STEADY_SAMPLES = 3
STEADY_SHARE = 0.01
SAMPLE_SECONDS = 5.0


# ------------------------------------------------------------------ units
def parse_units(text: str) -> dict[str, str]:
    """Return the running units with the identifiers of their runs, from the output of systemctl show."""
    found = {}
    for block in text.split("\n\n"):
        unit = dict(line.partition("=")[::2] for line in block.splitlines())
        name = unit.get("Id", "")
        if unit.get("ActiveState") == "active" and unit.get("InvocationID") and not OF_LOGINS.match(name):
            found[name] = unit["InvocationID"]
    return found


def units() -> dict[str, Any]:
    command = ["systemctl", "show", "--property=Id,ActiveState,InvocationID", "*.service", "*.socket"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    packages = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}\n"], capture_output=True, text=True, check=True
    ).stdout
    return {"units": parse_units(text), "packages": packages.count("ii ")}


# ------------------------------------------------------------------ memory
def kibibytes(rollup: str) -> int:
    """Return the share of memory of a process (PSS), swapped-out memory included, from its smaps_rollup."""
    return sum(int(size) for size in re.findall(r"^(?:Swap)?Pss:\s+(\d+) kB$", rollup, re.MULTILINE))


def unit_of(cgroup: str) -> str:
    """Return the systemd unit of a process, from its /proc/PID/cgroup."""
    path = next((line.split(":", 2)[2] for line in cgroup.splitlines() if re.match(r"0::|\d+:name=systemd:", line)), "")
    names = [part for part in path.split("/") if re.search(r"\.(service|socket|scope)$", part)]
    return names[-1] if names else "others"


def asking(stat_of: Callable[[int], str], pid: int) -> set[int]:
    """Return this process and its parents up to that of the ssh server, which only exist because of this query."""
    found: set[int] = set()
    while pid > 1:
        parent = int(stat_of(pid).rpartition(")")[2].split()[1])
        # A child of init was there before, unless it is this process.
        if parent <= 1 and found:
            break
        found.add(pid)
        pid = parent
    return found


def take(left_out: set[int]) -> dict[str, dict[str, int]]:
    """Return the KiB of memory by unit, of the cloud and of its guests."""
    cloud: dict[str, int] = {}
    guests: dict[str, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) in left_out:
            continue
        try:
            size = kibibytes((process / "smaps_rollup").read_text())
            name = (process / "comm").read_text().strip()
            unit = unit_of((process / "cgroup").read_text())
        except OSError:
            continue  # It ended, or is a kernel thread without memory.
        kind = guests if name.startswith(GUEST) else cloud
        kind[unit] = kind.get(unit, 0) + size
    return {"cloud": cloud, "guests": guests}


def steady(totals: Iterable[int]) -> bool:
    """Return whether the last samples are nearly equal."""
    last = list(totals)[-STEADY_SAMPLES:]
    return len(last) == STEADY_SAMPLES and max(last) - min(last) <= STEADY_SHARE * max(last)


def memory(limit: float) -> dict[str, Any]:
    """Return the memory once it is steady, or after the limit."""
    begin = time.monotonic()
    left_out = asking(lambda pid: Path("/proc", str(pid), "stat").read_text(), os.getpid())
    totals: list[int] = []
    while True:
        taken = take(left_out)
        totals.append(sum(taken["cloud"].values()))
        if steady(totals) or time.monotonic() - begin >= limit:
            break
        time.sleep(SAMPLE_SECONDS)
    return {**taken, "kib": totals[-1], "samples": totals, "steady": steady(totals)}


def main() -> None:
    print(json.dumps(units() if sys.argv[1] == "units" else memory(float(sys.argv[2]))))


if __name__ == "__main__":
    main()
