# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ask Ceph as one of its clients, on any host that has the client's key.

A request to a store whose data cannot be read waits until they can be, for days if need be. Nothing here does.
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

SECONDS = 20
# The program ceph starts slowly on a busy host.
HEALTH_SECONDS = 30
CONNECT_SECONDS = 5
DOWN = re.compile(r"^osd\.(\d+) .*\bhost=([^,)]+).* is down$")
# By which data cannot be read or written.
STANDING = ("OSD_DOWN", "PG_AVAILABILITY", "OSD_FULL", "POOL_FULL", "SLOW_OPS")


class RbdError(Exception):
    """A refusal, in Ceph's words."""


class Silence(RbdError):
    """No answer in time."""


def ask(*command: str, seconds: float = SECONDS) -> Any:
    """Return what a program of Ceph answers. Raises RbdError where it refuses, Silence where it does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=seconds)
    except OSError as error:
        raise RbdError(str(error)) from error
    except subprocess.TimeoutExpired as error:
        raise Silence from error
    if done.returncode:
        why = " ".join(done.stderr.split())[-500:]
        raise RbdError(why or f"{command[0]} ended with status {done.returncode}")
    return json.loads(done.stdout)


def image(source: str, user: str) -> Any:
    """Return what Ceph says of an image POOL/NAME. Silence says why the store does not answer."""
    try:
        return ask("rbd", "--id", user, "info", "--format", "json", source)
    except Silence:
        raise Silence(f"the store does not answer: {cause(user)}") from None


def cause(user: str) -> str:
    """Return what the monitors say of a store that does not answer, with the commands that mend it."""
    try:
        health = ask(
            *("ceph", "--id", user, "--connect-timeout", str(CONNECT_SECONDS), "--format", "json", "health", "detail"),
            seconds=HEALTH_SECONDS,
        )
    except RbdError as error:
        return f"the monitors of Ceph do not answer this host either ({str(error) or 'no answer in time'})"
    checks = {code: check for code, check in health["checks"].items() if code in STANDING}
    texts = [check["summary"]["message"] for check in checks.values()]
    lines = [one["message"] for one in checks.get("OSD_DOWN", {}).get("detail", [])]
    down = [found.groups() for line in lines if (found := DOWN.match(line))]
    commands = [f"systemctl restart ceph-osd@{number} on {host}" for number, host in down]
    mended = f"; {' and '.join(commands)} starts what is down, and so does site.yml" if commands else ""
    return ", ".join(texts or [f"the monitors of Ceph do, and say {health['status']}"]) + mended
