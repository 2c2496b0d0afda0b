# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Lock out earlier calls of a module.

A module continues after its run is killed. Without a lock, the next run plans its changes while the earlier call still
makes the same ones, and Keystone, for example, then has every endpoint twice.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import IO

from ansible.module_utils.basic import AnsibleModule

DIRECTORY = "/run/kilonova"
POLL_SECONDS = 0.2
# Open until the process ends: the kernel releases the locks then, even after a kill.
_held: list[IO[str]] = []


class Busy(Exception):
    """A lock was not released in time; the text is for the user."""


def take(stream: IO[str], timeout: float, holder: str) -> None:
    """Take a POSIX lock for this process. Raises Busy."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except (BlockingIOError, PermissionError):
            if time.monotonic() > deadline:
                raise Busy(f"{holder} after {timeout:g} s; see: fuser -v {stream.name}") from None
        time.sleep(POLL_SECONDS)


def wait_for_earlier_call(module: AnsibleModule, name: str, timeout: float = 600) -> None:
    """Wait for earlier calls of a module, and block later ones until this process ends. Not in check mode."""
    if module.check_mode:
        return
    # 0711: system users have directories in it (service_tool), and nobody must list it.
    os.makedirs(DIRECTORY, mode=0o711, exist_ok=True)
    stream = open(os.path.join(DIRECTORY, f"{name}.lock"), "w", encoding="utf-8")  # noqa: SIM115
    _held.append(stream)
    try:
        take(stream, timeout, f"{name} of an earlier run is still at work")
    except Busy as error:
        module.fail_json(msg=f"Nothing was done: {error}")
