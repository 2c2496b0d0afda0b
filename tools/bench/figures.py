# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Turn measurements into tables. Nothing here runs or measures anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

MEANING = {
    "a": "by hand, until the guest answers ping",
    "b": "site.yml, until the guest answers ping",
    "c": "site.yml with nothing to do",
    "d": "site.yml with a changed option of the Nova API",
    "e": "site.yml with a changed option of all Nova services",
}
# Two measurements and the highest ratio aimed at.
RATIOS = (("b", "a", 1.0), ("c", "b", 0.08), ("d", "c", 1.5), ("e", "c", None))
AIM_C_SECONDS = 12.0
AIM_MEMORY_GIB = 2.5
STARTING = "(Ansible itself, before the first task)"
ENDING = "(Ansible itself, after the last task)"


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Return minimum, median and maximum; None without values."""
    if not values:
        return None
    return {"min": min(values), "median": median(values), "max": max(values)}


def ratios(rounds: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float] | None]:
    """Return the spread of each ratio over the rounds. A ratio compares parts of one round, which ran successively."""
    rounds = list(rounds)
    return {
        f"{upper}/{lower}": spread(
            [one[upper]["seconds"] / one[lower]["seconds"] for one in rounds if upper in one and lower in one]
        )
        for upper, lower, _ in RATIOS
    }


def line(name: str, values: Mapping[str, float] | None, form: str, aim: float | None, meaning: str) -> str:
    """Return a line of the table. Without a measurement, values is None."""
    cells = [format(values[key], form) if values else "-" for key in ("min", "median", "max")]
    wanted = "" if aim is None else f"<= {aim:{form}}"
    return f"{name:<10}{cells[0]:>9}{cells[1]:>9}{cells[2]:>9}  {wanted:<10}{meaning}".rstrip()


def table(rounds: Iterable[Mapping[str, Any]]) -> str:
    """Return seconds, ratios and memory of all rounds."""
    rounds = list(rounds)
    lines = [f"{'':<10}{'min':>9}{'median':>9}{'max':>9}  aim"]
    for letter, meaning in MEANING.items():
        seconds = spread([one[letter]["seconds"] for one in rounds if letter in one])
        if seconds:
            lines.append(line(f"{letter}, s", seconds, ".1f", AIM_C_SECONDS if letter == "c" else None, meaning))
        if letter == "b" and (whole := spread([one["b"]["whole"] for one in rounds if "b" in one])):
            lines.append(line("b end, s", whole, ".1f", None, "the same, to the end of the verification"))
    found = ratios(rounds)
    for upper, lower, aim in RATIOS:
        if found[f"{upper}/{lower}"]:
            lines.append(line(f"{upper}/{lower}", found[f"{upper}/{lower}"], ".3f", aim, ""))
    kinds: tuple[tuple[str, str, float | None, str], ...] = (
        ("memory,GiB", "control_plane_kib", AIM_MEMORY_GIB, "of the idle control plane"),
        ("all, GiB", "kib", None, "with the compute services, without the guest"),
    )
    for name, key, most, meaning in kinds:
        sizes = spread([one["memory"][key] / 2**20 for one in rounds if "memory" in one])
        if sizes:
            lines.append(line(name, sizes, ".2f", most, meaning))
    return "\n".join(lines)


# ------------------------------------------------------------------ profiles
def profile(run: Mapping[str, Any]) -> dict[str, tuple[float, int]]:
    """Return seconds and number of runs of each task, up to the end of the measurement.

    With what Ansible needs before the first and after the last task, they add up to the whole.
    """
    begin, end, tasks = run["begin"], run["end"], run["tasks"]
    found: dict[str, tuple[float, int]] = {STARTING: (min(tasks[0]["start"] if tasks else end, end) - begin, 1)}
    for task in tasks:
        seconds = min(task["start"] + task["seconds"], end) - task["start"]
        if seconds > 0:
            before, count = found.get(task["task"], (0.0, 0))
            found[task["task"]] = (before + seconds, count + 1)
    last = tasks[-1]["start"] + tasks[-1]["seconds"] if tasks else end
    if last < end:
        found[ENDING] = (end - last, 1)
    return found


def middle_profile(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, int]]:
    """Return tasks with median seconds over the runs (0 where missing) and number of runs, the slowest first."""
    profiles = [profile(run) for run in runs]
    names = dict.fromkeys(name for one in profiles for name in one)
    entries = [
        (
            name,
            median(one.get(name, (0.0, 0))[0] for one in profiles),
            max(one.get(name, (0.0, 0))[1] for one in profiles),
        )
        for name in names
    ]
    return sorted(entries, key=lambda entry: -entry[1])


def profile_table(entries: Sequence[tuple[str, float, int]], rows: int) -> str:
    """Return the slowest tasks as text, each with its share."""
    total = sum(seconds for _, seconds, _ in entries) or 1.0
    lines = [
        f"{seconds:8.1f} s {seconds / total:6.1%}  {name}{f' (x{count})' if count > 1 else ''}"
        for name, seconds, count in entries[:rows]
    ]
    rest = sum(seconds for _, seconds, _ in entries[rows:])
    if len(entries) > rows:
        lines.append(f"{rest:8.1f} s {rest / total:6.1%}  the other {len(entries) - rows}")
    return "\n".join([*lines, f"{total:8.1f} s 100.0%  in all"])


def stages(output: str, seconds: float) -> list[tuple[str, float]]:
    """Return the stages of the deployment by hand and their seconds, from its output.

    The last one ends at seconds. A later one is left out: the guest may answer before the script sees it ACTIVE.
    """
    lines = [text.split(" ", 2)[1:] for text in output.splitlines() if text.startswith("### ")]
    starts = [(name, float(start)) for start, name in lines if float(start) < seconds]
    ends = [*(start for _, start in starts[1:]), seconds]
    return [(name, round(end - start, 2)) for (name, start), end in zip(starts, ends, strict=True)]


def stage_table(runs: Sequence[Sequence[tuple[str, float]]]) -> str:
    """Return the median seconds of each stage, in order."""
    taken: dict[str, list[float]] = {}
    for run in runs:
        for name, seconds in run:
            taken.setdefault(name, []).append(seconds)
    return "\n".join(f"{median(seconds):8.1f} s  {name}" for name, seconds in taken.items())


# ------------------------------------------------------------------ what changed
def restarted(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return the units that have restarted or stopped."""
    return sorted(name for name, run in before.items() if after.get(name) != run)


def changes(run: Mapping[str, Any]) -> list[str]:
    """Return the tasks that changed something, with the hosts."""
    return [f"{task['task']} ({', '.join(task['changed'])})" for task in run["tasks"] if task["changed"]]


def memory_table(memory: Mapping[str, Any], rows: int = 15) -> str:
    """Return the units with the most memory."""
    units = sorted(memory["cloud"].items(), key=lambda entry: -entry[1])
    lines = [f"{kib / 1024:8.0f} MiB  {name}" for name, kib in units[:rows]]
    if len(units) > rows:
        lines.append(f"{sum(kib for _, kib in units[rows:]) / 1024:8.0f} MiB  the other {len(units) - rows}")
    lines.append(
        f"{memory['kib'] / 1024:8.0f} MiB  in all, without the guests' {sum(memory['guests'].values()) / 1024:.0f}"
    )
    return "\n".join(lines)
