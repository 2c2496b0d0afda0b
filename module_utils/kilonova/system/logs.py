# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Return the last log lines of systemd units, for the end of a failure message.

The OpenStack packages of Debian log to C(/var/log/<project>/<unit>.log), and only failures to start to the journal.
Other daemons do the opposite. A failure message therefore shows the end of both.
"""

from __future__ import annotations

import glob
import os
import re
import subprocess
from collections.abc import Iterable

from ansible.module_utils.kilonova.config.masking import mask_url_passwords
from ansible.module_utils.kilonova.system.service_index import read_index

LOG_ROOT = "/var/log"
# A log file may have gigabytes.
TAIL_BYTES = 256 * 1024
JOURNAL_TIMEOUT = 20

_ALARMING = re.compile(r"\b(ERROR|CRITICAL|FATAL|EMER|Traceback|fatal|panic)\b|\[error\]|: error:", re.ASCII)
_UNIT_SUFFIX = re.compile(r"\.(service|socket|target|timer|path|mount)$")


def unit_log(unit: str, lines: int = 20) -> str:
    """Return the last lines of a unit's journal and of each of its log files, labelled. Never raises.

    The name may have a suffix. Passwords in URLs are masked, and errors are part of the text.
    """
    try:
        parts = [_section(f"journal of {unit}", journal_lines(unit, lines))]
        parts += [_section(path, file_lines(path, lines)) for path in log_files(unit)]
    except Exception as error:
        return f"(the logs of {unit} cannot be read: {error})"
    return mask_url_passwords("\n".join(parts))


def layer_logs(layers: Iterable[str], lines: int = 15) -> str:
    """Return the last log lines of the layers' units on this host, each unit once. Never raises."""
    index = read_index()
    if index.problem:
        return f"(no logs: {index.problem})"
    units = dict.fromkeys(unit for layer in layers for unit in index.layers.get(layer, []))
    return "\n".join(unit_log(unit, lines) for unit in units)


def journal_lines(unit: str, lines: int) -> list[str]:
    """Return the last lines of a unit's journal, or a note if it cannot be read."""
    command = ["journalctl", "--unit", unit, "--lines", str(lines), "--no-pager", "--output", "short-iso", "--quiet"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=JOURNAL_TIMEOUT, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return [f"(cannot be read: {error})"]
    if done.returncode != 0:
        return [f"(cannot be read: {done.stderr.strip() or f'journalctl exited with {done.returncode}'})"]
    return done.stdout.splitlines()


def log_files(unit: str, root: str = LOG_ROOT) -> list[str]:
    """Return the paths of a unit's log files that are not empty: those in the index, or those named after it."""
    name = _UNIT_SUFFIX.sub("", unit)
    patterns = read_index().logs.get(name, [])
    if not patterns:
        escaped = glob.escape(name)
        patterns = [f"{escaped}.log", f"*/{escaped}.log"]
        if name.endswith("-server"):
            short = glob.escape(name.removesuffix("-server"))
            patterns += [f"{short}.log", f"{short}/{short}.log"]
    found = [path for pattern in patterns for path in sorted(glob.glob(os.path.join(root, pattern)))]
    return [path for path in dict.fromkeys(found) if os.path.isfile(path) and os.path.getsize(path)]


def file_lines(path: str, lines: int) -> list[str]:
    """Return the last lines of a file; if none reports an error, the last earlier errors come first."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - TAIL_BYTES))
            text = stream.read().decode(errors="replace")
    except OSError as error:
        return [f"(cannot be read: {error.strerror})"]
    every = text.splitlines()
    earlier, last = every[: max(0, len(every) - lines)], every[max(0, len(every) - lines) :]
    if any(_ALARMING.search(line) for line in last):
        return last
    alarming = [line for line in earlier if _ALARMING.search(line)][-5:]
    return [*alarming, "[...]", *last] if alarming else last


def _section(label: str, lines: list[str]) -> str:
    body = lines or ["(empty)"]
    return "\n".join([f"--- {label}:", *body])
