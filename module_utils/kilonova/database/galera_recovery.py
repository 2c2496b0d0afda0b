# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Let an operator choose the member with which a Galera cluster begins again that is down as a whole.

Documented in library/galera_recovery.py.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.database.galera import DATA, NO_POSITION, PERMIT, PROGRAM
from ansible.module_utils.kilonova.system.atomic_file import replace

ARGUMENT_SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "choice": {"type": "str", "default": ""},
    "without": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 120},
}
POLL_SECONDS = 1
States = Mapping[str, Mapping[str, Any] | None]


def position(state: Mapping[str, Any]) -> str:
    """Return a position as permits write it."""
    return f"{state['uuid']}:{state['seqno']}" if state["uuid"] else NO_POSITION


def lines(states: States) -> list[str]:
    """Return what each member has, one line each."""
    found = []
    for name, state in states.items():
        if not state:
            found.append(f"{name}: does not answer")
        elif state.get("primary"):
            found.append(f"{name}: in the cluster {state['uuid']}")
        elif state.get("waits"):
            what = f"cluster {state['uuid']}, transaction {state['seqno']}" if state["uuid"] else "no data of a cluster"
            found.append(f"{name}: waits; {what}")
        else:
            found.append(f"{name}: MariaDB starts, stops, or is stopped")
    return found


def refusal(states: States, choice: str, without: Collection[str]) -> str:
    """Return why the cluster may not begin with this member; empty where it may."""
    silent = sorted(name for name, state in states.items() if not (state and state.get("waits")))
    data = {name: state for name, state in states.items() if state and state.get("waits") and state["uuid"]}
    newest = max(data, key=lambda name: int(data[name]["seqno"]), default="")
    if not newest:
        return "No member that answers has data of a cluster. Restore a backup, or start a host that has them."
    if len({state["uuid"] for state in data.values()}) > 1:
        return (
            "Members have data of different clusters, and nothing tells which one is meant. Look at them, and move "
            f"{DATA} away on the hosts whose cluster is given up."
        )
    if not choice:
        text = f"{newest} has the newest data of those that answer. To begin with it: ansible-playbook "
        text += f"playbooks/recover.yml -e recover_database={newest}"
        if silent:
            text += f" -e recover_without={','.join(silent)}. What only {', '.join(silent)} had committed is lost. "
            text += "Start them instead, if that can be."
        return text
    if choice not in data:
        return f"{choice} does not wait with data of a cluster: the cluster cannot begin with it. Choose {newest}."
    if data[choice]["seqno"] < data[newest]["seqno"]:
        return f"{newest} has newer data than {choice}, which would be lost. Choose {newest}."
    if set(silent) != set(without):
        return (
            f"Not known what they have: {', '.join(silent) or 'none'}. recover_without names "
            f"{', '.join(without) or 'none'}. Name exactly those whose newest transactions may be lost."
        )
    return ""


def show(module: AnsibleModule) -> dict[str, Any]:
    """Return what all members say."""
    try:
        done = subprocess.run([PROGRAM, "show"], capture_output=True, text=True, timeout=60, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"The members of the database cannot be asked: {error}. Is this cloud deployed?")
    return found


def wait(look: Callable[[], dict[str, Any]], done: Callable[[States], bool], seconds: float) -> dict[str, Any]:
    """Return what members say once they are done, or the time is over."""
    end = time.monotonic() + seconds
    while True:
        states = look()
        if done(states) or time.monotonic() > end:
            return states
        time.sleep(POLL_SECONDS)


def run(module: AnsibleModule) -> None:
    """Write the permit on the chosen member, and wait until it is in the cluster."""
    params = module.params
    name, choice = params["name"], params["choice"]

    def settled(states: States) -> bool:
        return any(state and state.get("primary") for state in states.values()) or all(
            not state or state.get("waits") for state in states.values()
        )

    states = wait(lambda: show(module), settled, params["timeout"] / 4)
    listed = lines(states)
    if any(state and state.get("primary") for state in states.values()):
        module.exit_json(changed=False, members=listed)
    why = refusal(states, choice, params["without"])
    if why:
        module.fail_json(msg="\n".join(["The database is down as a whole.", *listed, why]), members=listed)
    if choice == name and not module.check_mode:
        replace(f"{DATA}/{PERMIT}", position(states[name]) + "\n", mode=0o644)
        states = wait(lambda: show(module), lambda seen: bool((seen[name] or {}).get("primary")), params["timeout"])
        listed = lines(states)
        if not (states[name] or {}).get("primary"):
            module.fail_json(msg="\n".join([f"{name} did not begin the cluster; see journalctl -u mariadb", *listed]))
    module.exit_json(changed=choice == name, members=listed)
