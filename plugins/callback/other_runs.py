# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Say when another run with the same inventory is at work."""

from __future__ import annotations

DOCUMENTATION = r"""
name: other_runs
type: aggregate
short_description: Warn of another run with the same inventory
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - Two runs on the same hosts wait for each other in places only. Warns at the start of the later one, and does not
    stop it, because they may change different hosts.
  - Knows of runs in this checkout only.
options:
  directory:
    description: Directory of the lock files. Empty for C(.cache/runs) in the checkout.
    type: str
    default: ""
    env:
      - name: KILONOVA_RUNS_DIRECTORY
    ini:
      - section: callback_other_runs
        key: directory
requirements:
  - allowed in configuration (C(callback_plugins))
"""

import fcntl
import getpass
import hashlib
import os
import time
from pathlib import Path
from typing import IO, Any

import ansible.context as context
from ansible.plugins.callback import CallbackBase

RUNS = Path(__file__).resolve().parents[2] / ".cache" / "runs"


def announce(path: Path, text: str) -> tuple[IO[str] | None, str]:
    """Take a lock and write who has it. Return the open file, and what another run wrote that has the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        other = stream.read().strip()
        stream.close()
        return None, other or "unknown"
    stream.truncate(0)
    stream.write(text)
    stream.flush()
    return stream, ""


class CallbackModule(CallbackBase):
    """Entry point for Ansible."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "other_runs"

    def __init__(self) -> None:
        super().__init__()
        # Open, and so locked, until the process and its workers end.
        self.lock: IO[str] | None = None

    def v2_playbook_on_start(self, playbook: Any) -> None:
        inventories = sorted(os.path.realpath(path) for path in context.CLIARGS["inventory"] or [])
        name = hashlib.sha256("\n".join(inventories).encode()).hexdigest()[:16]
        playbooks = ", ".join(Path(path).name for path in context.CLIARGS["args"])
        text = f"{playbooks} (PID {os.getpid()}, {getpass.getuser()}, since {time.strftime('%H:%M:%S')})"
        try:
            directory = Path(self.get_option("directory") or RUNS)
            self.lock, other = announce(directory / f"{name}.lock", text)
        except OSError:
            return  # A checkout of another user.
        if other:
            self._display.warning(
                f"Another run with this inventory, or what is left of a killed one, is at work: {other}. They wait for "
                "each other in places only. Stop one of them, unless they change different hosts (--limit)."
            )
