# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Locks between processes of a host, first of all between a module and an earlier call of it.

A module goes on when the run that called it is killed. The next run would work out its changes from what is there
while the earlier call still makes the same ones: Keystone, for one, takes every endpoint twice.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import IO

from ansible.module_utils.basic import AnsibleModule

DIRECTORY = "/run/kilonova"
POLL_SECONDS = 0.2
# Open as long as the process lives: the kernel gives the locks back with it, however it ends.
_held: list[IO[str]] = []


class Busy(Exception):
    """A lock that was not given back in time; the text is for the user."""


def take(stream: IO[str], timeout: float, holder: str) -> None:
    """Take a POSIX lock, which belongs to the process. Raises Busy."""
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
    """Let an earlier call of a module end, and hold the next one up until this process ends. Not in check mode."""
    if module.check_mode:
        return
    # 0711: system users have directories of their own there (service_tool), nobody has to list it.
    os.makedirs(DIRECTORY, mode=0o711, exist_ok=True)
    stream = open(os.path.join(DIRECTORY, f"{name}.lock"), "w", encoding="utf-8")  # noqa: SIM115
    _held.append(stream)
    try:
        take(stream, timeout, f"{name} of an earlier run is still at work")
    except Busy as error:
        module.fail_json(msg=f"Nothing was done: {error}")
