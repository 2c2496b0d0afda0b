# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Keep OVN's databases of this host members of their Raft clusters, and never begin one beside another.

Documented in library/ovn_cluster.py.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.dry_run import not_looked_at
from ansible.module_utils.kilonova.system.logs import unit_log
from ansible.module_utils.kilonova.system.waiting import look_until

ARGUMENT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["looked", "prepared", "absent", "joining", "member"], "default": "member"},
    "databases": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True, "choices": ["northbound", "southbound"]},
            "address": {"type": "str", "required": True},
            "members": {"type": "list", "elements": "str", "required": True},
            "expected": {"type": "list", "elements": "str", "default": []},
        },
    },
    "looks": {"type": "list", "elements": "dict", "default": []},
    "timeout": {"type": "int", "default": 120},
}
POLL_SECONDS = 0.5
ASK_SECONDS = 5
SET_ASIDE = ".set-aside"
# In milliseconds. A member that hears nothing for one to two of these stands for election.
ELECTION_TIMER = 2000
NORTHD = "ovn-northd.service"


@dataclass(frozen=True)
class Database:
    """Where a database is."""

    schema: str
    file: str
    control: str
    unit: str
    schema_file: str


DATABASES = {
    "northbound": Database(
        "OVN_Northbound",
        "/var/lib/ovn/ovnnb_db.db",
        "/run/ovn/ovnnb_db.ctl",
        "ovn-ovsdb-server-nb.service",
        "/usr/share/ovn/ovn-nb.ovsschema",
    ),
    "southbound": Database(
        "OVN_Southbound",
        "/var/lib/ovn/ovnsb_db.db",
        "/run/ovn/ovnsb_db.ctl",
        "ovn-ovsdb-server-sb.service",
        "/usr/share/ovn/ovn-sb.ovsschema",
    ),
}
MEMBER = re.compile(r"^\s+(?P<sid>[0-9a-f]{4}) \([0-9a-f]{4} at (?P<address>[^)]+)\)")
# Of connections that are not open, the name is in parentheses.
CONNECTED = re.compile(r"(?<![(])(?:->|<-)([0-9a-f]{4})")


@dataclass
class Look:
    """What a host knows of a database: the file, and what its server says of the cluster."""

    # "", standalone or clustered
    file: str = ""
    address: str = ""
    cluster: str = ""
    sid: str = ""
    # Whether its server is a member of the cluster that knows a leader.
    serving: bool = False
    # Addresses of the members by identifier, and the identifiers of those that it is connected to, itself included.
    members: dict[str, str] = field(default_factory=dict)
    connected: list[str] = field(default_factory=list)
    leads: bool = False
    error: str = ""


@dataclass(frozen=True)
class Plan:
    """What to do with a database before its server starts: "", create, convert, join or anew (set aside, and join)."""

    action: str = ""
    # Addresses of those that have the database, those that serve first.
    through: tuple[str, ...] = ()
    problem: str = ""


def look_from(status: str) -> Look:
    """Read the answer to cluster/status."""
    values = dict(line.split(": ", 1) for line in status.splitlines() if ": " in line and not line.startswith(" "))
    members = {found["sid"]: found["address"] for line in status.splitlines() if (found := MEMBER.match(line))}
    sid = values.get("Server ID", "")[:4]
    return Look(
        file="clustered",
        address=values.get("Address", ""),
        cluster=values.get("Cluster ID", "").partition("(")[2].rstrip(")"),
        sid=sid,
        serving=values.get("Status") == "cluster member" and values.get("Leader", "unknown") != "unknown",
        members=members,
        connected=sorted({sid, *CONNECTED.findall(values.get("Connections", ""))} & {*members}),
        leads=values.get("Role") == "leader",
    )


def quorum_without(look: Look, address: str) -> bool:
    """Return whether the members that a host is connected to are a majority without the one of an address."""
    alive = [sid for sid in look.connected if look.members[sid] != address]
    return look.serving and look.address != address and len(alive) * 2 > len(look.members)


def plan(name: str, address: str, members: Sequence[str], looks: Mapping[str, Look | None]) -> Plan:
    """Return what to do with a database. looks: by the address of the member, None where the host was not reached."""
    mine = looks[address] or Look()
    others = {one: looks[one] for one in members if one != address}
    holders = [one for one, look in others.items() if look is not None and look.file]
    serving = {one: look for one, look in others.items() if look is not None and quorum_without(look, address)}
    through = tuple(sorted(holders, key=lambda one: one not in serving))
    clusters = {look.cluster for look in [mine, *others.values()] if look is not None and look.cluster}
    standalone = [one for one in holders if (look := others[one]) is not None and look.file == "standalone"]
    if len(clusters) > 1 or (mine.file == "standalone" and holders) or len(standalone) > 1:
        return Plan(
            problem=f"OVN's {name} database exists with other content elsewhere ({', '.join([address, *holders])}). "
            "Keep one of them: move the files of the others away (/var/lib/ovn)"
        )
    if mine.file == "clustered":
        gone = mine.sid and serving and all(mine.sid not in look.members for look in serving.values() if look)
        return Plan("anew", through) if gone else Plan()
    if mine.file == "standalone":
        return Plan("convert")
    if holders:
        return Plan("join", through)
    unknown = [one for one, look in others.items() if look is None]
    if unknown:
        return Plan(
            problem=f"OVN's {name} database is not here, and {', '.join(unknown)} cannot be asked, which may have it. "
            "Start these hosts, or take them out of the inventory for good"
        )
    return Plan("create") if address == members[0] else Plan("join", (members[0],))


def output_of(module: AnsibleModule, *command: str) -> str:
    """Return what a command prints, empty where it fails."""
    code, output, _error = module.run_command(list(command))
    return str(output).strip() if code == 0 else ""


def must(module: AnsibleModule, *command: str) -> None:
    """Run a command that must not fail."""
    code, output, error = module.run_command(list(command))
    if code != 0:
        module.fail_json(msg=f"'{' '.join(command)}' failed: {error.strip() or output.strip()}")


def ask(module: AnsibleModule, database: Database) -> Look:
    """Return what the server of this host says of the cluster."""
    if not os.path.exists(database.control):
        return Look(error=f"{database.unit} does not run")
    command = ["ovs-appctl", f"--timeout={ASK_SECONDS}", "-t", database.control, "cluster/status", database.schema]
    code, output, error = module.run_command(command)
    return look_from(output) if code == 0 else Look(error=error.strip() or output.strip())


def look_here(module: AnsibleModule, name: str) -> Look:
    """Look at the file, and at its server."""
    database = DATABASES[name]
    if not os.path.exists(database.file) or shutil.which("ovsdb-tool") is None:
        return Look()
    code, _output, _error = module.run_command(["ovsdb-tool", "db-is-clustered", database.file])
    if code != 0:
        return Look(file="standalone")
    look = ask(module, database)
    if look.error:
        look.address = output_of(module, "ovsdb-tool", "db-local-address", database.file)
        look.cluster = output_of(module, "ovsdb-tool", "db-cid", database.file)
        look.sid = output_of(module, "ovsdb-tool", "db-sid", database.file)[:4]
    look.file = "clustered"
    return look


def install(database: Database, new: str) -> None:
    """Put a new file in the place of the old one, which is kept beside it."""
    if os.path.exists(database.file):
        kept = database.file + SET_ASIDE
        if os.path.exists(kept):
            os.unlink(kept)
        os.link(database.file, kept)
    os.replace(new, database.file)


def write(
    module: AnsibleModule, database: Database, action: str, address: str, cluster: str = "", members: Sequence[str] = ()
) -> None:
    """Make the file of a member. The server stops before, so that the file has all that it acknowledged.

    cluster, members: what to join, of which the identifier may be unknown.
    """
    new = database.file + ".new"
    if os.path.exists(new):
        os.unlink(new)
    os.makedirs(os.path.dirname(database.file), exist_ok=True)
    if os.path.exists(database.file):
        must(module, "systemctl", "stop", NORTHD, database.unit)
    if action == "join":
        options = [f"--cid={cluster}"] if cluster else []
        must(module, "ovsdb-tool", *options, "join-cluster", new, database.schema, address, *members)
    else:
        content = database.file if action == "convert" else database.schema_file
        must(module, "ovsdb-tool", f"--election-timer={ELECTION_TIMER}", "create-cluster", new, content, address)
    install(database, new)


def prepare(module: AnsibleModule) -> None:
    """Begin the first member, where it is proved that no database exists; make a cluster of a standalone one."""
    changes: list[str] = []
    through: dict[str, list[str]] = {}
    plans: dict[str, Plan] = {}
    entries = {entry["name"]: entry for entry in module.params["databases"]}
    for name, entry in entries.items():
        found = {one[name]["wanted"]: one[name] for one in module.params["looks"] if name in one}
        looks = {
            address: Look(**{key: value for key, value in found[address].items() if key != "wanted"})
            if address in found
            else None
            for address in entry["members"]
        }
        plans[name] = plan(name, entry["address"], entry["members"], looks)
    problems = [one.problem for one in plans.values() if one.problem]
    if problems:
        module.fail_json(msg="\n".join(problems))
    for name, todo in plans.items():
        database, address = DATABASES[name], entries[name]["address"]
        if todo.action in ("create", "convert"):
            if not module.check_mode:
                write(module, database, todo.action, address)
            changes.append(f"OVN {name}: {todo.action} {database.file} as {address}")
        elif todo.action == "anew":
            if not module.check_mode:
                must(module, "systemctl", "stop", NORTHD, database.unit)
                os.replace(database.file, database.file + SET_ASIDE)
            changes.append(f"OVN {name}: {database.file} set aside: the cluster goes on without it")
        if todo.action in ("join", "anew"):
            through[name] = list(todo.through)
    module.exit_json(changed=bool(changes), changes=changes, through=through)


def remove(module: AnsibleModule) -> None:
    """Take members out of their clusters by their addresses, once the others are a majority without them."""
    changes: list[str] = []
    clusters: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + module.params["timeout"]
    for entry in module.params["databases"]:
        name, address, database = entry["name"], entry["address"], DATABASES[entry["name"]]
        look = look_until(
            module, partial(ask, module, database), partial(quorum_without, address=address), deadline, POLL_SECONDS
        )
        if not quorum_without(look, address):
            if module.check_mode:
                why = look.error or "it has no majority yet"
                not_looked_at(module, f"OVN's {name} cluster", why, changes=changes, clusters=clusters)
            connected = sorted(look.members[sid] for sid in look.connected)
            module.fail_json(
                msg=f"{address} cannot be taken out of OVN's {name} cluster: of its members "
                f"{sorted(look.members.values())}, only {connected} are connected. {look.error}".rstrip()
            )
        for sid in [sid for sid, one in look.members.items() if one == address]:
            changes.append(f"OVN {name}: {address} ({sid}) taken out of the cluster")
            if not module.check_mode:
                must(module, "ovs-appctl", "-t", database.control, "cluster/kick", database.schema, sid)
                while sid in ask(module, database).members:
                    if time.monotonic() > deadline:
                        module.fail_json(msg=f"{address} ({sid}) is still in OVN's {name} cluster")
                    time.sleep(POLL_SECONDS)
        members = [one for one in look.members.values() if one != address]
        clusters[name] = {"cluster": look.cluster, "members": members}
    module.exit_json(changed=bool(changes), changes=changes, clusters=clusters)


def join(module: AnsibleModule) -> None:
    """Make files that join clusters, which are in "looks"."""
    changes = []
    for entry in module.params["databases"]:
        name, database = entry["name"], DATABASES[entry["name"]]
        known = [one[name] for one in module.params["looks"] if name in one]
        if os.path.exists(database.file) or not known:
            continue
        if not module.check_mode:
            write(module, database, "join", entry["address"], known[0]["cluster"], known[0]["members"])
        changes.append(f"OVN {name}: {entry['address']} joins the cluster")
    module.exit_json(changed=bool(changes), changes=changes)


def keep(module: AnsibleModule) -> None:
    """Wait until the servers are members together with those that are expected, then remove what was set aside."""
    deadline = time.monotonic() + module.params["timeout"]
    changes: list[str] = []
    foreign: list[str] = []
    missing: list[str] = []
    looks: dict[str, dict[str, Any]] = {}
    for entry in module.params["databases"]:
        name, database = entry["name"], DATABASES[entry["name"]]
        wanted = {entry["address"], *entry["expected"]}
        look = look_until(
            module, partial(look_here, module, name), partial(ready, wanted=wanted), deadline, POLL_SECONDS
        )
        looks[name] = asdict(look)
        connected = {look.members[sid] for sid in look.connected}
        if not ready(look, {entry["address"]} if module.check_mode else wanted):
            why = look.error or (
                f"{', '.join(sorted(wanted - connected))} are not connected" if look.serving else "it knows no leader"
            )
            if module.check_mode:
                not_looked_at(module, f"OVN's {name} cluster", why, changes=changes)
            module.fail_json(
                msg=f"OVN's {name} database of this host is not in a whole cluster: {why}\n{unit_log(database.unit)}"
            )
        foreign += [f"OVN {name}: member {one}" for one in look.members.values() if one not in entry["members"]]
        missing += [f"OVN {name}: {one}" for one in entry["members"] if one not in connected]
        old = database.file + SET_ASIDE
        # It may be the last copy until every member has what the cluster has.
        if os.path.exists(old) and {*entry["members"]} <= connected:
            if not module.check_mode:
                os.unlink(old)
            changes.append(f"OVN {name}: {old} removed")
    module.exit_json(changed=bool(changes), changes=changes, foreign=foreign, missing=missing, looks=looks)


def ready(look: Look, wanted: set[str]) -> bool:
    """Return whether a server is a member of a cluster with a leader, and connected to these members."""
    return look.serving and wanted <= {look.members[sid] for sid in look.connected}


def run(module: AnsibleModule) -> None:
    """Do what the state says."""
    if module.params["state"] == "looked":
        looks = {
            entry["name"]: asdict(look_here(module, entry["name"])) | {"wanted": entry["address"]}
            for entry in module.params["databases"]
        }
        module.exit_json(changed=False, look=looks)
    {"prepared": prepare, "absent": remove, "joining": join, "member": keep}[module.params["state"]](module)
