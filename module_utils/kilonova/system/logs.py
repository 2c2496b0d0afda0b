# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The last log lines of a systemd unit, for the end of a failure message.

Debian's OpenStack packages log to C(/var/log/<project>/<unit>.log) and leave only start-up failures in the journal;
other daemons do the opposite. A failure message therefore shows the end of both.
"""

from __future__ import annotations

import glob
import os
import re
import subprocess

# Log files whose name does not follow from the unit's name: {unit without suffix: glob patterns below /var/log}.
UNUSUAL_LOG_FILES: dict[str, tuple[str, ...]] = {
    "mariadb": ("mysql/error.log", "mysql/mariadb.log"),
    "openvswitch-switch": ("openvswitch/ovs-vswitchd.log", "openvswitch/ovsdb-server.log"),
    "ovn-central": ("ovn/ovn-northd.log", "ovn/ovsdb-server-nb.log", "ovn/ovsdb-server-sb.log"),
    "ovn-host": ("ovn/ovn-controller.log",),
    "ovn-ovsdb-server-nb": ("ovn/ovsdb-server-nb.log",),
    "ovn-ovsdb-server-sb": ("ovn/ovsdb-server-sb.log",),
    "rabbitmq-server": ("rabbitmq/rabbit@*.log", "rabbitmq/rabbitmq-server.error.log"),
}
LOG_ROOT = "/var/log"
# How much of the end of a log file is read: enough for the lines wanted, little enough for a file of gigabytes.
TAIL_BYTES = 256 * 1024
JOURNAL_TIMEOUT = 20

_URL_PASSWORD = re.compile(r"(://[^\s:/@]*:)[^\s]*(@[\w.\[\]:-]+)")
_ALARMING = re.compile(r"\b(ERROR|CRITICAL|FATAL|EMER|Traceback|fatal|panic)\b|\[error\]|: error:", re.ASCII)
_UNIT_SUFFIX = re.compile(r"\.(service|socket|target|timer|path|mount)$")


def unit_log(unit: str, lines: int = 20) -> str:
    """The unit's last journal lines and the last lines of its log files, labelled. Never raises.

    unit: a systemd unit's name, with or without C(.service). lines: how many lines of each source.
    Passwords inside URLs are masked. Errors met while reading are part of the text.
    """
    try:
        parts = [_section(f"journal of {unit}", journal_lines(unit, lines))]
        parts += [_section(path, file_lines(path, lines)) for path in log_files(unit)]
    except Exception as error:
        return f"(the logs of {unit} cannot be read: {error})"
    return mask_url_passwords("\n".join(parts))


def mask_url_passwords(text: str) -> str:
    """Replace the password of every C(scheme://user:password@host)."""
    return _URL_PASSWORD.sub(r"\1********\2", text)


def journal_lines(unit: str, lines: int) -> list[str]:
    """The unit's last lines in the journal, oldest first; a note when the journal cannot be read."""
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
    """The log files that belong to a unit, as paths; empty ones are left out."""
    name = _UNIT_SUFFIX.sub("", unit)
    if name in UNUSUAL_LOG_FILES:
        patterns = list(UNUSUAL_LOG_FILES[name])
    else:
        escaped = glob.escape(name)
        patterns = [f"{escaped}.log", f"*/{escaped}.log"]
        if name.endswith("-server"):
            short = glob.escape(name.removesuffix("-server"))
            patterns += [f"{short}.log", f"{short}/{short}.log"]
    found = [path for pattern in patterns for path in sorted(glob.glob(os.path.join(root, pattern)))]
    return [path for path in dict.fromkeys(found) if os.path.isfile(path) and os.path.getsize(path)]


def file_lines(path: str, lines: int) -> list[str]:
    """The last lines of a file; when none of them reports an error, preceded by the last ones before them that do."""
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
