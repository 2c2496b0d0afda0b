# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The state of systemd units, and the verbs that bring a unit to its wanted state."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

# File times have the granularity of the kernel's tick, start times microseconds.
CLOCK_GRAIN = 0.01
SUFFIXES = (".service", ".socket", ".target", ".timer", ".path", ".mount", ".slice")
RUNNING = ("active", "reloading", "refreshing", "activating")
# Generated files are new after each daemon-reload; SourcePath names what they were made from.
GENERATED = ("/run/systemd/generator", "/run/systemd/transient", "/run/systemd/units")
CANNOT_BE_ENABLED = ("static", "indirect", "alias", "transient", "bad", "")
UNIT_FILES = "/etc/systemd/system"
OWN_DROP_INS = "kilonova"


@dataclass
class Unit:
    """One entry of O(units) with its properties as systemctl shows them."""

    name: str
    state: str
    enabled: bool | None
    masked: bool | None
    reads: list[str]
    ports: list[int]
    deferred: list[str] = field(default_factory=list)
    reloads: list[str] = field(default_factory=list)
    now: dict[str, str] = field(default_factory=dict)
    verbs: list[str] = field(default_factory=list)
    reason: str = ""  # of a restart or reload

    def get(self, name: str) -> str:
        """Return a property, "" if systemd did not show it."""
        return self.now.get(name, "")

    @property
    def must_run(self) -> bool:
        """Whether the unit is wanted to run."""
        return self.state == "started" and not self.masked

    @property
    def installed(self) -> bool:
        """Whether systemd finds a unit file."""
        return self.get("LoadState") not in ("not-found", "")

    @property
    def running(self) -> bool:
        """Whether the unit runs, is starting, or has finished its work."""
        return self.get("ActiveState") in RUNNING or self.finished

    @property
    def finished(self) -> bool:
        """Whether this is a oneshot unit that has succeeded and leaves nothing running."""
        return (
            self.get("Type") == "oneshot"
            and self.get("RemainAfterExit") == "no"
            and self.get("ActiveState") == "inactive"
            and self.get("Result") == "success"
            and bool(self.get("ExecMainStartTimestamp"))
        )

    @property
    def since(self) -> float:
        """When the main process started (seconds since the epoch), 0 if it never did."""
        for name in ("ExecMainStartTimestamp", "InactiveExitTimestamp", "ActiveEnterTimestamp"):
            if self.get(name):
                return parse_timestamp(self.get(name))
        return 0.0

    @property
    def changed(self) -> float:
        """When the unit last started or reloaded (seconds since the epoch), 0 if it never did."""
        text = self.get("StateChangeTimestamp")
        return parse_timestamp(text) if text else 0.0


def parse_timestamp(text: str) -> float:
    """Return the seconds since the epoch of C(Sun 2026-11-22 18:11:27.087918 UTC)."""
    text = text.split(" ", 1)[1].removesuffix(" UTC")
    layout = "%Y-%m-%d %H:%M:%S.%f" if "." in text else "%Y-%m-%d %H:%M:%S"
    return datetime.strptime(text, layout).replace(tzinfo=UTC).timestamp()


def full_name(name: str) -> str:
    """Return a unit's name with its suffix; names without one mean services."""
    return name if name.endswith(SUFFIXES) else f"{name}.service"


def names_with(verb: str, units: list[Unit]) -> list[str]:
    """Return the names of the units that a verb is planned for."""
    return [unit.name for unit in units if verb in unit.verbs]


# Reasons to restart


def newest(path: str, deferred: Sequence[str] = ()) -> tuple[float, str]:
    """Return the newest time stamp at or below a path, and its file; (0, path) if there is nothing.

    deferred: files that do not count, nor does the change of a directory when one of them came into it.
    """
    latest = (_stamp(path, deferred), path)
    if not os.path.isdir(path):
        return latest
    for directory, _, files in os.walk(path):
        for name in [directory, *(os.path.join(directory, file) for file in files)]:
            latest = max(latest, (_stamp(name, deferred), name))
    return latest


def _stamp(path: str, deferred: Sequence[str]) -> float:
    """Return when a file or directory changed last, 0 if it does not exist or does not count."""
    try:
        changed = 0.0 if path in deferred else os.stat(path).st_mtime
        # A file is renamed to its name, which changes the directory and the file's status in one instant.
        came = [os.stat(name).st_ctime for name in deferred if os.path.dirname(name) == path and os.path.exists(name)]
    except OSError:
        return 0.0
    return 0.0 if any(abs(changed - instant) <= CLOCK_GRAIN for instant in came) else changed


def definition_files(unit: Unit) -> list[str]:
    """Return the unit file or its source, the drop-ins, and their directory, whose time tells of a removed drop-in."""
    paths = [unit.get("FragmentPath"), unit.get("SourcePath"), *unit.get("DropInPaths").split()]
    kept = [path for path in paths if path and not path.startswith(GENERATED)]
    directory = f"{UNIT_FILES}/{unit.name}.d"
    return [*kept, directory] if os.path.isdir(directory) else kept


def foreign_drop_ins(unit: Unit) -> list[str]:
    """Return the drop-ins that neither a package nor Kilonova has installed."""
    paths = unit.get("DropInPaths").split()
    paths = [path for path in paths if not path.startswith(("/usr/lib/", "/lib/", *GENERATED))]
    # systemd shows a deleted one until it reloads.
    return [path for path in paths if not os.path.basename(path).startswith(OWN_DROP_INS) and os.path.exists(path)]


def restart_reason(unit: Unit, files: list[str]) -> str:
    """Return why a running unit must restart, "" if it need not."""
    stamp, path = max((newest(path, unit.deferred) for path in files), default=(0.0, ""))
    return f"{path} changed" if stamp + CLOCK_GRAIN > unit.since > 0 else ""


def reload_reason(unit: Unit) -> str:
    """Return why a running unit must reload, "" if it need not."""
    stamp, path = max((newest(path) for path in unit.reloads), default=(0.0, ""))
    return f"{path} changed" if stamp + CLOCK_GRAIN > unit.changed > 0 else ""


def pending_reason(unit: Unit, files: list[str], pending: Sequence[str]) -> str:
    """Return why a unit must restart once a dry run's files are written, "" if it need not."""
    own = [*files, f"{UNIT_FILES}/{unit.name}", f"{UNIT_FILES}/{unit.name}.d"]
    for path in pending:
        if path not in unit.deferred and any(path == file or path.startswith(f"{file}/") for file in own):
            return f"{path} changed"
    return ""


def deferred_change(unit: Unit, pending: Sequence[str] = ()) -> bool:
    """Return whether what changed in the definition of a running unit takes effect at its next start only."""
    return any(newest(path)[0] + CLOCK_GRAIN > unit.since or path in pending for path in unit.deferred)


# The plan


def sysv_enabled(unit: Unit) -> bool:
    """Return whether an init script without a unit file is linked into a runlevel."""
    return bool(glob.glob(f"/etc/rc[2-5].d/S[0-9][0-9]{glob.escape(unit.name.removesuffix('.service'))}"))


def is_enabled(unit: Unit) -> bool:
    """Return whether the unit starts at boot."""
    state = unit.get("UnitFileState")
    if state == "generated" and unit.get("SourcePath").startswith("/etc/init.d/"):
        return sysv_enabled(unit)
    return state in ("enabled", "generated")


def plan(unit: Unit, pending: Sequence[str] = ()) -> None:
    """Fill in the verbs that bring a unit to its wanted state, once the pending files are written."""
    masked = unit.get("LoadState") == "masked" or unit.get("UnitFileState").startswith("masked")
    if unit.masked is True:
        unit.verbs += [] if masked else ["mask"]
        unit.verbs += ["stop"] if unit.get("ActiveState") in RUNNING else []
        return
    if unit.masked is False and masked:
        unit.verbs.append("unmask")
    state = unit.get("UnitFileState")
    if unit.enabled is True and not is_enabled(unit) and (state not in CANNOT_BE_ENABLED or not unit.installed):
        unit.verbs.append("enable")
    if unit.enabled is False and (is_enabled(unit) or state == "enabled-runtime") and state != "generated":
        unit.verbs.append("disable")
    if unit.enabled is False and state == "generated" and sysv_enabled(unit):
        unit.verbs.append("disable")
    if unit.state == "stopped":
        unit.verbs += ["stop"] if unit.get("ActiveState") in RUNNING else []
    elif not unit.running:
        unit.verbs.append("start")
    else:
        files = [*definition_files(unit), *unit.reads]
        unit.reason = restart_reason(unit, files) or pending_reason(unit, files, pending)
        if not unit.reason and unit.get("NeedDaemonReload") == "yes" and not deferred_change(unit, pending):
            unit.reason = "its unit file changed"
        unit.verbs += ["restart"] if unit.reason else []
        if not unit.reason:
            unit.reason = reload_reason(unit) or pending_reason(unit, unit.reloads, pending)
            # One that starts, or waits to be started after a failure, cannot reload.
            verb = "restart" if unit.get("ActiveState") == "activating" else "reload"
            unit.verbs += [verb] if unit.reason else []
