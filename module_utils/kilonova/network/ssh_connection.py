# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Where the ssh connection of a process comes from."""

from __future__ import annotations

import re
from typing import Any


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def ssh_connection(pid: int, proc: str = "/proc") -> dict[str, Any]:
    """Return the source of the ssh connection of a process, and the port of sshd; an empty source without one.

    sudo removes the variable, so the environments of parents are looked at.
    """
    while pid > 1:
        for variable in _read(f"{proc}/{pid}/environ").split("\0"):
            name, _, value = variable.partition("=")
            fields = value.split()
            if name == "SSH_CONNECTION" and len(fields) == 4:
                return {"source": fields[0].partition("%")[0], "port": int(fields[3])}
        match = re.search(r"^PPid:\s+(\d+)", _read(f"{proc}/{pid}/status"), re.MULTILINE)
        pid = int(match.group(1)) if match else 0
    return {"source": "", "port": 0}
