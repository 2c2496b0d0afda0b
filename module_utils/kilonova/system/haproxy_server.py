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
    "names": {"type": "list", "elements": "str", "required": True},
    "proxies": {"type": "list", "elements": "str", "required": True},
    "state": {"type": "str", "choices": ["drained", "ready", "idle", "serving", "checked"], "required": True},
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


def rows(path: str, names: list[str], proxies: list[str]) -> list[dict[str, str]]:
    """Return what HAProxy says of servers in each of the proxies. Raises OSError."""
    text = command(path, "show stat").removeprefix("# ")
    return [row for row in csv.DictReader(text.splitlines()) if row["svname"] in names and row["pxname"] in proxies]


def label(row: dict[str, str]) -> str:
    """Return the proxy and the server, as HAProxy's commands name them."""
    return f"{row['pxname']}/{row['svname']}"


def out(row: dict[str, str]) -> bool:
    """Return whether somebody has taken the server out."""
    return row["status"].split(" ")[0] in OUT


def busy(found: list[dict[str, str]], state: str) -> list[str]:
    """Return servers with requests in progress that should have none."""
    return [label(row) for row in found if state in ("drained", "idle") and int(row["scur"] or 0)]


def wrong(found: list[dict[str, str]], state: str) -> list[str]:
    """Return servers that are not up, or get new requests, as they should not."""
    # One in maintenance (404) is as ready as it can be.
    up = ("UP",)
    well = {"ready": (*up, "NOLB"), "serving": up, "checked": up, "idle": ("NOLB", "DOWN", *OUT)}.get(state, ("",))
    return [f"{label(row)} ({row['status']})" for row in found if not row["status"].startswith(well)]


def run(module: AnsibleModule) -> None:
    """Set the state, and wait until requests have ended, or the server is up."""
    params = module.params
    names, proxies, path, state = params["names"], params["proxies"], params["socket"], params["state"]
    try:
        # One that tracks another has the state of that.
        found = [row for row in rows(path, names, proxies) if not row.get("tracked")]
        tells = state in ("drained", "ready")
        changed = [label(row) for row in found if tells and out(row) != (state == "drained")]
        if module.check_mode:
            module.exit_json(changed=bool(changed), servers=changed, changes=lines(changed, state), unfinished=[])
        # One that is down does not show whether it was taken out.
        told = changed + [label(row) for row in found if state == "ready" and row["status"].startswith("DOWN")]
        for server in told:
            word = "drain" if state == "drained" else "ready"
            if answer := command(path, f"set server {server} state {word}"):
                module.fail_json(msg=f"HAProxy does not set the state of {server}: {answer}")
        for row in found if state == "checked" else []:
            # The next check that passes finds it up.
            if answer := command(path, f"set server {label(row)} health down"):
                module.fail_json(msg=f"HAProxy does not forget the health of {label(row)}: {answer}")
        end = time.monotonic() + params["timeout"]
        while True:
            found = rows(path, names, proxies)
            left, others = busy(found, state), wrong(found, state)
            if not (left or others) or time.monotonic() >= end:
                break
            time.sleep(POLL_SECONDS)
    except OSError as error:
        if module.check_mode:
            # One that does not run has taken nothing out; that it has to run is for others to say.
            module.exit_json(changed=False, servers=[], changes=[], unfinished=[])
        module.fail_json(msg=f"HAProxy does not answer at {path}: {error}. See journalctl -u haproxy.")
    if others and params["timeout"]:
        listed = f"after {params['timeout']:g} s: {', '.join(others)}"
        if state == "idle":
            module.fail_json(msg=f"HAProxy still sends requests to these servers {listed}.")
        module.fail_json(
            msg=f"HAProxy does not find these servers up {listed}. It sends "
            "them no requests. See the logs of these services there."
        )
    module.exit_json(changed=bool(changed), servers=changed, changes=lines(changed, state), unfinished=left or others)


def lines(servers: list[str], state: str) -> list[str]:
    """Return changes as a report lists them."""
    return [f"haproxy: {server} {state}" for server in servers]
