# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Join a host to OVN through its Open vSwitch database.

Documented in library/ovs_chassis.py.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.dry_run import not_looked_at
from ansible.module_utils.kilonova.system.logs import unit_log

ARGUMENT_SPEC: dict[str, Any] = {
    "external_ids": {"type": "dict", "default": {}},
    "managers": {"type": "list", "elements": "str"},
    "ssl": {
        "type": "dict",
        "options": {
            "private_key": {"type": "path", "required": True, "no_log": False},
            "certificate": {"type": "path", "required": True},
            "ca_cert": {"type": "path", "required": True},
        },
    },
    "bridges": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "datapath_type": {"type": "str", "choices": ["system", "netdev"], "default": "system"},
            "ports": {"type": "list", "elements": "str", "default": []},
            "exclusive": {"type": "bool", "default": False},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
    },
}
# Columns of the table SSL, in the order in which ovs-vsctl takes them.
SSL = ("private_key", "certificate", "ca_cert")
# Without --if-exists: of a port that is opened again.
CLOSE = "del-port"
# Seconds that ovs-vsctl waits for ovs-vswitchd to apply a change.
TIMEOUT = 30
# A database that runs answers a dry run at once.
DRY_RUN_TIMEOUT = 5


@dataclass
class State:
    """The settings in the database."""

    external_ids: dict[str, str] = field(default_factory=dict)
    managers: list[str] = field(default_factory=list)
    # Private key, certificate and authority.
    ssl: list[str] = field(default_factory=list)
    bridges: dict[str, dict[str, Any]] = field(default_factory=dict)
    # Ports whose network device is not the one that Open vSwitch opened.
    stale: list[str] = field(default_factory=list)


def kernel_index(name: str, sysfs: Path = Path("/sys/class/net")) -> int:
    """Return the index of a network device, 0 if it does not exist."""
    try:
        return int((sysfs / name / "ifindex").read_text(encoding="ascii"))
    except OSError:
        return 0


def open_indexes(path: Path = Path("/proc/net/packet")) -> set[int]:
    """Return the indexes of the network devices that packet sockets are bound to."""
    rows = path.read_text(encoding="ascii").splitlines()[1:]
    return {int(row.split()[4]) for row in rows}


def table(text: str) -> list[dict[str, Any]]:
    """Return the rows of ``ovs-vsctl --format=json list``, with sets as lists and maps as dicts.

    RFC 7047 writes them as ["set", [...]] and ["map", [[key, value], ...]], and a set of one as its element.
    """

    def value(cell: Any) -> Any:
        if isinstance(cell, list) and len(cell) == 2:
            kind, content = cell
            if kind == "set":
                return [value(item) for item in content]
            if kind == "map":
                return {key: value(item) for key, item in content}
            if kind == "uuid":
                return content
        return cell

    data = json.loads(text)
    return [dict(zip(data["headings"], map(value, row), strict=True)) for row in data["data"]]


def as_list(cell: Any) -> list[Any]:
    """Return the elements of a set; a set of one is written as its element."""
    return cell if isinstance(cell, list) else [cell]


def state_from(tables: dict[str, list[dict[str, Any]]]) -> State:
    """Read the state from the tables Open_vSwitch, Manager, SSL, Bridge, Port and Interface."""
    ports = {row["_uuid"]: row["name"] for row in tables["Port"]}
    bridges = {
        row["name"]: {
            "datapath_type": row["datapath_type"] or "system",
            "ports": [ports[port] for port in as_list(row["ports"])],
        }
        for row in tables["Bridge"]
    }
    in_user_space = [port for one in bridges.values() if one["datapath_type"] == "netdev" for port in one["ports"]]
    return State(
        external_ids=tables["Open_vSwitch"][0]["external_ids"],
        managers=sorted(row["target"] for row in tables["Manager"]),
        ssl=[row[name] for row in tables["SSL"] for name in SSL],
        bridges=bridges,
        stale=[row["name"] for row in tables["Interface"] if is_stale(row, row["name"] in in_user_space)],
    )


def is_stale(interface: dict[str, Any], in_user_space: bool) -> bool:
    """Return whether the device of a port is gone, or was deleted and created again.

    It then has another index than Open vSwitch knows, which says 0 of one that is gone. In user space, Open vSwitch
    learns the new index and keeps its packet socket of the old device. Only for ports that are devices of the host.
    """
    index = kernel_index(interface["name"])
    return interface["ifindex"] != (index or None) or (in_user_space and index not in open_indexes())


def plan(state: State, params: dict[str, Any]) -> tuple[list[list[str]], list[str], dict[str, Any]]:
    """Return the ovs-vsctl commands that the parameters need, a line for each change, and the diff."""
    commands: list[list[str]] = []
    changes: list[str] = []
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}

    def note(name: str, old: Any, new: Any) -> None:
        before[name], after[name] = old, new
        changes.append(f"{name} = {new}")

    for key, wanted in sorted(params["external_ids"].items()):
        value, now = str(wanted), state.external_ids.get(key, "")
        if value == now:
            continue
        if value:
            commands.append(["set", "Open_vSwitch", ".", f"external-ids:{key}={json.dumps(value)}"])
        else:
            commands.append(["remove", "Open_vSwitch", ".", "external-ids", key])
        note(f"external-ids:{key}", now, value)
    managers = params["managers"]
    if managers is not None and sorted(managers) != state.managers:
        commands.append(["set-manager", *managers] if managers else ["del-manager"])
        note("managers", state.managers, sorted(managers))
    ssl = [params["ssl"][name] for name in SSL] if params["ssl"] else state.ssl
    if ssl != state.ssl:
        commands.append(["set-ssl", *ssl])
        note("ssl", state.ssl, ssl)
    for bridge in params["bridges"]:
        name, datapath = bridge["name"], bridge["datapath_type"]
        if bridge["state"] == "absent":
            if name in state.bridges:
                commands.append(["--if-exists", "del-br", name])
                note(name, "present", "absent")
            continue
        now_bridge = state.bridges.get(name, {"datapath_type": None, "ports": []})
        if now_bridge["datapath_type"] != datapath:
            commands.append(["--may-exist", "add-br", name])
            commands.append(["set", "Bridge", name, f"datapath_type={datapath}"])
            note(f"{name}:datapath_type", now_bridge["datapath_type"], datapath)
        missing = [port for port in bridge["ports"] if port not in now_bridge["ports"]]
        for port in missing:
            # It may be a port of another bridge.
            commands.append(["--if-exists", "del-port", port])
            commands.append(["add-port", name, port])
        # Every bridge has a port of its name.
        kept = [port for port in now_bridge["ports"] if not bridge["exclusive"] or port in (name, *bridge["ports"])]
        surplus = [port for port in now_bridge["ports"] if port not in kept]
        commands += [["--if-exists", "del-port", name, port] for port in surplus]
        if missing or surplus:
            note(f"{name}:ports", now_bridge["ports"], kept + missing)
        for port in (port for port in bridge["ports"] if port in kept and port in state.stale):
            commands += [[CLOSE, name, port], ["add-port", name, port]]
            note(f"{name}:{port}", "a deleted device", "the present device")
    return commands, changes, {"before": before, "after": after}


def ovs_vsctl(module: AnsibleModule, *arguments: str) -> str:
    """Return the output of ovs-vsctl. A failure ends the module with the logs of the servers."""
    timeout = DRY_RUN_TIMEOUT if module.check_mode else TIMEOUT
    code, output, error = module.run_command(["ovs-vsctl", f"--timeout={timeout}", *arguments])
    if code and module.check_mode:
        not_looked_at(module, "Open vSwitch's database", error.strip() or output.strip(), changes=[])
    if code:
        logs = "\n".join(unit_log(unit) for unit in ("ovsdb-server.service", "ovs-vswitchd.service"))
        module.fail_json(msg=f"ovs-vsctl failed: {error.strip() or output.strip()}\n{logs}")
    return str(output)


def read(module: AnsibleModule) -> State:
    """Read the state from the database."""
    columns = {
        "Open_vSwitch": "external_ids",
        "Manager": "target",
        "SSL": ",".join(SSL),
        "Bridge": "name,datapath_type,ports",
        "Port": "_uuid,name",
        "Interface": "name,ifindex",
    }
    return state_from(
        {
            name: table(ovs_vsctl(module, "--format=json", f"--columns={wanted}", "list", name))
            for name, wanted in columns.items()
        }
    )


def run(module: AnsibleModule) -> None:
    """Apply all differences in one transaction; ports to open again are removed in one before it.

    A port that is removed and added in one transaction keeps its socket.
    """
    installed = shutil.which("ovs-vsctl") is not None
    state = State() if module.check_mode and not installed else read(module)
    commands, changes, diff = plan(state, module.params)
    if commands and not module.check_mode:
        closing = [command for command in commands if command[0] == CLOSE]
        for transaction in (closing, [command for command in commands if command[0] != CLOSE]):
            if transaction:
                ovs_vsctl(module, *[word for command in transaction for word in ("--", *command)])
    module.exit_json(changed=bool(commands), changes=changes, diff=diff)
