# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""List what a run changed, or a dry run would change, from the results of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

# Keys of results that list changes, and how an entry reads.
NAMED = {
    "changed_files": "{}",
    "changes": "{}",
    "actions": "{}",
    "mappings": "{}",
    "hosts": "map {} to its cell",
    "made": "make {}",
    "generated": "generate {}",
    "upgraded": "upgrade the schema {}",
    "commands": "run {}",
    "started": "start {}",
    "stopped": "stop {}",
    "disabled": "disable {}",
    "masked": "mask {}",
    "unmasked": "unmask {}",
}
# Tasks named beside a text that several of them reported.
SHOWN_TASKS = 3

# {host, task} and one of items (list), needs_you (text), not_looked_at (text) and foreign (text).
Entry = dict[str, Any]


@dataclass
class Record:
    """The entries of this run, in the order of its tasks."""

    entries: list[Entry] = field(default_factory=list)
    kept: bool = False

    def begin(self) -> None:
        """Forget everything, and state that results are recorded from now on."""
        self.entries.clear()
        self.kept = True


# Filled by the callback plugin "changes". Workers are forks, so that the action of drift_report finds it filled.
RECORD = Record()


def items(result: dict[str, Any], fallback: str) -> list[str]:
    """Return what a changed result changed, or ``fallback`` if it does not tell."""
    found: list[str] = []
    for key, text in NAMED.items():
        value = result.get(key)
        found += [text.format(entry) for entry in value if isinstance(entry, str)] if isinstance(value, list) else []
    restarted = [entry["name"] for entry in result.get("restarted") or [] if isinstance(entry, dict)]
    found += [f"restart {name}" for name in restarted]
    found += [f"reload {entry['name']}" for entry in result.get("reloaded") or [] if isinstance(entry, dict)]
    # Units that start are enabled as well; only the others are worth a line.
    started = result.get("started") or []
    found += [f"enable {name}" for name in result.get("enabled") or [] if name not in [*started, *restarted]]
    if "lists_updated" in result:  # apt_packages; "missing" of nova_cells means hosts
        found += [f"install {name}" for name in result["missing"]] + list(result["repaired"])
    return found or [str(result.get("dest") or result.get("path") or fallback)]


def cause(result: dict[str, Any]) -> str:
    """Return the first line of a failed result's message."""
    lines = str(result.get("msg") or "").strip().splitlines()
    return lines[0] if lines else "no message"


def is_failed(result: dict[str, Any]) -> bool:
    """Return whether a task, or an item of its loop, failed or could not reach the host."""
    return bool(result.get("failed") or result.get("unreachable"))


def entries(host: str, task: str, result: dict[str, Any]) -> list[Entry]:
    """Return the entries of one task's result on one host. The items of a loop are merged."""
    parts = result.get("results") or [result]
    failed = [part for part in parts if is_failed(part)] or [result] * is_failed(result)
    changed = [item for part in parts if part.get("changed") and not is_failed(part) for item in items(part, task)]
    found: list[Entry] = [{"items": list(dict.fromkeys(changed))}] if changed else []
    found += [{"needs_you": text} for part in parts for text in part.get("needs_you") or []]
    found += [{"foreign": text} for part in parts for text in part.get("foreign") or []]
    found += [{"not_looked_at": part["not_looked_at"]} for part in parts if part.get("not_looked_at")]
    found += [{"not_looked_at": cause(part)} for part in failed]
    return [{"host": host, "task": task, **entry} for entry in found]


def tasks_of_texts(record: Iterable[Entry], key: str) -> dict[str, list[str]]:
    """Return {text: tasks that reported it} of one kind of entries."""
    found: dict[str, list[str]] = {}
    for entry in record:
        if key in entry:
            tasks = found.setdefault(entry[key], [])
            tasks += [] if entry["task"] in tasks else [entry["task"]]
    return found


def reported_by(tasks: Sequence[str]) -> str:
    """Return the names of some tasks in parentheses."""
    more = f", {len(tasks) - SHOWN_TASKS} more" if len(tasks) > SHOWN_TASKS else ""
    return f"({', '.join(tasks[:SHOWN_TASKS])}{more})"


def differences(record: Iterable[Entry]) -> list[str]:
    """Return lines with what a run would correct, by task."""
    lines: list[str] = []
    for entry in record:
        if "items" in entry:
            lines += [f"  {entry['task']}", *(f"    {item}" for item in entry["items"])]
    return lines


def obstacles(record: Iterable[Entry]) -> list[str]:
    """Return lines with what a run cannot correct, and what a dry run could not see."""
    record = list(record)
    return [
        *(f"  needs you: {text}" for text in tasks_of_texts(record, "needs_you")),
        *(
            f"  could not look: {text} {reported_by(tasks)}"
            for text, tasks in tasks_of_texts(record, "not_looked_at").items()
        ),
    ]


def additions(record: Iterable[Entry]) -> list[str]:
    """Return lines with what is there besides, and which a run leaves alone."""
    return [f"  not ours: {text}" for text in tasks_of_texts(record, "foreign")]


def report(record: Sequence[Entry], *kinds: Callable[[Iterable[Entry]], list[str]]) -> list[str]:
    """Return the lines of these kinds by host; all kinds by default."""
    lines: list[str] = []
    for host in sorted({entry["host"] for entry in record}):
        own = [entry for entry in record if entry["host"] == host]
        found = [line for kind in kinds or (differences, obstacles, additions) for line in kind(own)]
        lines += [host, *found] if found else []
    return lines


def verdict(record: Iterable[Entry]) -> str:
    """Return one sentence about all entries, "" if there are none."""
    record = [entry for entry in record if "foreign" not in entry]
    hosts = {entry["host"] for entry in record}
    differing = sum(len(entry.get("items", [])) for entry in record)
    counts = dict.fromkeys(("needs_you", "not_looked_at"), 0)
    for host in hosts:
        for key in counts:
            counts[key] += len(tasks_of_texts((entry for entry in record if entry["host"] == host), key))
    needing, unseen = counts.values()
    parts = [f"{differing} difference{'s' * (differing != 1)} from the inventory"] if differing else []
    parts += [f"{needing} thing{'s' * (needing != 1)} that need{'s' * (needing == 1)} you"] if needing else []
    parts += [f"{unseen} part{'s' * (unseen != 1)} that could not be looked at"] if unseen else []
    if not parts:
        return ""
    corrected = " site.yml with the same inventory corrects what differs." if differing else ""
    return f"{', '.join(parts)} on {len(hosts)} host{'s' * (len(hosts) != 1)}.{corrected}"
