# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Make a host a member of the Galera cluster of all controllers.

Documented in library/galera_member.py. What a member does when it starts is in
roles/mariadb/templates/galera-member.j2: it joins, or begins a cluster that was down as a whole once all members show
what they have. It begins one that does not exist only where this module has left its permit.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.atomic_file import replace
from ansible.module_utils.kilonova.system.locks import wait_for_earlier_call

ARGUMENT_SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "lead": {"type": "str", "required": True},
    "members": {"type": "dict", "required": True},
}
DATA = "/var/lib/mysql"
PERMIT = "kilonova-bootstrap"
# The position of data that were never in a cluster.
NO_POSITION = "none"
PROGRAM = "/usr/local/libexec/kilonova/galera-member"
NULL = "00000000-0000-0000-0000-000000000000"
# Directories of a data directory that are no databases of a site.
SYSTEM = {"mysql", "sys", "performance_schema", "lost+found"}


def galera_data(data: str = DATA) -> dict[str, Any]:
    """Return what MariaDB has on this host: the cluster whose data they are, databases, and whether they stand alone.

    Data stand alone that no cluster has sent here. A permit says the same of data of which a cluster begins.
    """
    state: str | None = None
    with contextlib.suppress(OSError), open(f"{data}/grastate.dat", encoding="ascii") as stream:
        state = stream.read()
    match = re.search(r"^uuid:\s+([0-9a-f-]{36})$", state or "", re.MULTILINE)
    uuid = match.group(1) if match and match.group(1) != NULL else ""
    permit = os.path.exists(f"{data}/{PERMIT}")
    directories: list[str] = []
    with contextlib.suppress(OSError):
        directories = sorted(entry.name for entry in os.scandir(data) if entry.is_dir())
    databases = [name for name in directories if name not in SYSTEM and not name.startswith((".", "#"))]
    return {"uuid": uuid, "databases": databases, "alone": bool(databases) and not uuid and (state is None or permit)}


@dataclass
class Verdict:
    """What a host does: ``member`` of a cluster that exists, ``join`` it, ``begin`` it. Or why it does nothing."""

    does: str = ""
    refusal: str = ""


def verdict(name: str, lead: str, members: Mapping[str, Mapping[str, Any] | None], live: Mapping[str, str]) -> Verdict:
    """Return what a host does.

    members: what each host has, None for one that was not looked at.
    live: the clusters that members which answer say they are in.
    """
    known = {host: data for host, data in members.items() if data is not None}
    clusters = {**{host: data["uuid"] for host, data in known.items() if data["uuid"]}, **live}
    alone = {host: data["databases"] for host, data in known.items() if data["alone"]}
    if len(set(clusters.values())) > 1:
        listed = ", ".join(f"{host}: {uuid}" for host, uuid in sorted(clusters.items()))
        return Verdict(
            refusal=(
                f"Controllers have data of different clusters of MariaDB ({listed}). To join, one would lose what it "
                f"has. Look at them, and move {DATA} away on the hosts whose cluster is given up."
            )
        )
    if clusters and name in alone:
        return Verdict(
            refusal=(
                f"MariaDB on {name} has databases ({', '.join(alone[name])}) that are not those of the cluster of "
                f"{', '.join(sorted(clusters))}. To join, it would lose them. If they are not needed, stop MariaDB "
                f"there, move {DATA} away, and run this again."
            )
        )
    if clusters:
        return Verdict("member" if name in clusters and known.get(name, {}).get("uuid") else "join")
    if len(alone) > 1:
        listed = "; ".join(f"{host}: {', '.join(names)}" for host, names in sorted(alone.items()))
        return Verdict(
            refusal=(
                f"MariaDB has databases on several controllers, and there is no cluster of them ({listed}). The "
                f"cluster would keep those of one and lose the others. Move {DATA} away on the hosts whose databases "
                "are not needed."
            )
        )
    unknown = sorted(set(members) - set(known))
    if unknown:
        return Verdict(
            refusal=(
                f"No cluster of MariaDB exists as far as is known, and {', '.join(unknown)} could not be looked at: it "
                "may exist there. Run site.yml without --limit when all controllers answer."
            )
        )
    return Verdict("begin" if name == next(iter(alone), lead) else "join")


def live_clusters() -> dict[str, str]:
    """Return the clusters of the members that answer; none before the program that asks them is here."""
    try:
        done = subprocess.run([PROGRAM, "show"], capture_output=True, text=True, timeout=30, check=True)
        states = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    return {host: state["uuid"] for host, state in states.items() if state and state["uuid"]}


def runs(module: AnsibleModule) -> bool:
    """Return whether MariaDB is up."""
    return module.run_command(["systemctl", "is-active", "--quiet", "mariadb.service"])[0] == 0


def run(module: AnsibleModule) -> None:
    """Leave the permit to begin a cluster, or remove it."""
    params = module.params
    wait_for_earlier_call(module, "galera_member")
    members = {**params["members"], params["name"]: galera_data()}
    live = live_clusters() if None in members.values() else {}
    what = verdict(params["name"], params["lead"], members, live)
    if what.refusal:
        module.fail_json(msg=what.refusal)
    permit = f"{DATA}/{PERMIT}"
    begins, has_permit = what.does == "begin", os.path.exists(permit)
    changes = []
    if begins:
        changes = [f"begin the cluster with what {params['name']} has"] if not has_permit else []
        if changes and not module.check_mode:
            replace(permit, f"{NO_POSITION}\n", mode=0o644)
    elif has_permit:
        changes = ["remove the permit to begin a cluster"]
        if not module.check_mode:
            os.unlink(permit)
    module.exit_json(
        changed=bool(changes),
        changes=changes,
        name=params["name"],
        does=what.does,
        begins=begins,
        runs=what.does == "member" and runs(module),
        diff={"before": "", "after": "".join(f"{line}\n" for line in changes)} if module._diff else {},
    )
