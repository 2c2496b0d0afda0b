# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Take a server out of the proxies of an HAProxy, and put it back, without a change of its configuration.

Documented in library/haproxy_server.py.
"""

from __future__ import annotations

import csv
import socket
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

ARGUMENT_SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "proxies": {"type": "list", "elements": "str", "required": True},
    "state": {"type": "str", "choices": ["drained", "ready"], "required": True},
    "timeout": {"type": "float", "default": 60.0},
    "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
}
POLL_SECONDS = 0.2
OUT = ("DRAIN", "MAINT")


def command(path: str, text: str) -> str:
    """Return what HAProxy answers to a command. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5.0)
        connection.connect(path)
        connection.sendall(f"{text}\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace").strip()


def rows(path: str, name: str, proxies: list[str]) -> list[dict[str, str]]:
    """Return what HAProxy says of a server in each of the proxies. Raises OSError."""
    text = command(path, "show stat").removeprefix("# ")
    return [row for row in csv.DictReader(text.splitlines()) if row["svname"] == name and row["pxname"] in proxies]


def out(row: dict[str, str]) -> bool:
    """Return whether somebody has taken the server out."""
    return row["status"].split(" ")[0] in OUT


def unfinished(found: list[dict[str, str]], state: str) -> list[str]:
    """Return proxies in which requests are in progress, or the server is not up yet."""
    if state == "drained":
        return [row["pxname"] for row in found if int(row["scur"] or 0)]
    return [f"{row['pxname']} ({row['status']})" for row in found if not row["status"].startswith("UP")]


def run(module: AnsibleModule) -> None:
    """Set the state, and wait until requests have ended, or the server is up."""
    params = module.params
    name, path, state = params["name"], params["socket"], params["state"]
    try:
        found = rows(path, name, params["proxies"])
        changed = [row["pxname"] for row in found if out(row) != (state == "drained")]
        if module.check_mode:
            module.exit_json(changed=bool(changed), proxies=changed, unfinished=[])
        for proxy in changed:
            word = "drain" if state == "drained" else "ready"
            if answer := command(path, f"set server {proxy}/{name} state {word}"):
                module.fail_json(msg=f"HAProxy does not set the state of {proxy}/{name}: {answer}")
        end = time.monotonic() + params["timeout"]
        while (left := unfinished(rows(path, name, params["proxies"]), state)) and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
    except OSError as error:
        module.fail_json(msg=f"HAProxy does not answer at {path}: {error}. See journalctl -u haproxy.")
    if left and state == "ready":
        module.fail_json(
            msg=f"HAProxy does not find {name} up after {params['timeout']:g} s: {', '.join(left)}. It sends it no "
            "requests. See the logs of these services there."
        )
    module.exit_json(changed=bool(changed), proxies=changed, unfinished=left)
