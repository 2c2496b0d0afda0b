# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Units in made-up states, for the tests of systemd_units."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.kilonova.system.units import Unit

START = "Sun 2026-11-22 18:11:27.087918 UTC"
STARTED = 1795371087.087918


def unit(wanted: dict[str, Any] | None = None, /, **now: Any) -> Unit:
    """Return a running, enabled service, changed by the arguments."""
    entry: dict[str, Any] = {"name": "x.service", "state": "started", "enabled": None, "masked": None}
    shown = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "UnitFileState": "enabled"}
    shown |= {"ExecMainStartTimestamp": START, "ExecMainPID": "7", "Type": "simple", "NeedDaemonReload": "no"}
    return Unit(**{**entry, "reads": [], "ports": [], **(wanted or {})}, now=shown | now)


def stamp(path: Path, when: float) -> str:
    """Create a file with a time stamp and return its path."""
    path.touch()
    os.utime(path, (when, when))
    return str(path)
