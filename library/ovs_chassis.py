#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Converge what Open vSwitch's own database says of this host, in one transaction."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ovs_chassis
short_description: Join a host to OVN through its Open vSwitch database
version_added: "0.1.0"
description:
  - Sets external-ids of the Open_vSwitch record, which ovn-controller reads, the connections that the database
    server serves, and bridges with their ports.
  - Reads the present state first and applies all differences in one C(ovs-vsctl) transaction, so a host is never
    joined by half. External ids, bridges and ports that are not listed stay as they are.
options:
  external_ids:
    description:
      - Keys of the Open_vSwitch record's C(external_ids) with their values. An empty value removes the key.
      - "Those that OVN reads: https://www.ovn.org/support/dist-docs/ovn-controller.8.html"
    type: dict
    default: {}
  managers:
    description: Exactly the connections that the database serves or makes, as C(ovs-vsctl set-manager) writes them.
    type: list
    elements: str
  bridges:
    description: Bridges that must exist, or must not.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the bridge.
        type: str
        required: true
      datapath_type:
        description: V(system) for the kernel's datapath, V(netdev) for the one in user space.
        type: str
        choices: [system, netdev]
        default: system
      ports:
        description: Interfaces of the host that must be ports of the bridge.
        type: list
        elements: str
        default: []
      exclusive:
        description: Whether ports that are not listed are taken out of the bridge.
        type: bool
        default: false
      state:
        description: Whether the bridge exists. With V(absent), the other options are not looked at.
        type: str
        choices: [present, absent]
        default: present
attributes:
  check_mode:
    support: full
    description: Where Open vSwitch is not installed yet, everything is predicted to be set.
  diff_mode:
    support: full
    description: Shows the settings that differ.
notes:
  - Fails when C(ovs-vsctl) fails, with its message and the last log lines of ovsdb-server and ovs-vswitchd.
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Join this host to OVN
  ovs_chassis:
    external_ids:
      ovn-remote: tcp:10.0.0.11:6642
      ovn-encap-type: geneve
      ovn-encap-ip: 10.0.0.21
      ovn-bridge-mappings: physnet1:br-provider
    managers: ["ptcp:6640:127.0.0.1"]
    bridges:
      - name: br-provider
        ports: [ovs-br0]
"""

RETURN = r"""
changes:
  description: What differed and was set, one line each.
  returned: always
  type: list
  elements: str
  sample: ["external-ids:ovn-encap-ip = 10.0.0.21"]
not_looked_at:
  description: Why a dry run could not see, though it is installed. RV(ignore:changed) is then false.
  returned: in check mode, when ovsdb-server does not answer
  type: str
"""

import json
import shutil
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.dry_run import not_looked_at
from ansible.module_utils.kilonova.system.logs import unit_log

# Seconds for which ovs-vsctl waits for ovs-vswitchd to have done what was asked for.
TIMEOUT = 30
# A dry run asks a database that runs, which answers at once, or one that does not.
DRY_RUN_TIMEOUT = 5


@dataclass
class State:
    """What the database says."""

    external_ids: dict[str, str] = field(default_factory=dict)
    managers: list[str] = field(default_factory=list)
    bridges: dict[str, dict[str, Any]] = field(default_factory=dict)


def table(text: str) -> list[dict[str, Any]]:
    """
    Rows of ``ovs-vsctl --format=json list``, with sets and maps as Python's.

    Their notation is RFC 7047's: ["set", [...]], ["map", [[key, value], ...]], and a set of one as its element.
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
    """A set's elements; the database writes a set of one as that one."""
    return cell if isinstance(cell, list) else [cell]


def state_from(tables: dict[str, list[dict[str, Any]]]) -> State:
    """The state that the tables Open_vSwitch, Manager, Bridge and Port describe."""
    ports = {row["_uuid"]: row["name"] for row in tables["Port"]}
    return State(
        external_ids=tables["Open_vSwitch"][0]["external_ids"],
        managers=sorted(row["target"] for row in tables["Manager"]),
        bridges={
            row["name"]: {
                "datapath_type": row["datapath_type"] or "system",
                "ports": [ports[port] for port in as_list(row["ports"])],
            }
            for row in tables["Bridge"]
        },
    )


def plan(state: State, params: dict[str, Any]) -> tuple[list[list[str]], list[str], dict[str, Any]]:
    """The ovs-vsctl commands that make the state what is wanted, a line on each, and the diff."""
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
            # A port is moved from another bridge rather than refused.
            commands.append(["--if-exists", "del-port", port])
            commands.append(["add-port", name, port])
        # The bridge's own port has its name.
        kept = [port for port in now_bridge["ports"] if not bridge["exclusive"] or port in (name, *bridge["ports"])]
        surplus = [port for port in now_bridge["ports"] if port not in kept]
        commands += [["--if-exists", "del-port", name, port] for port in surplus]
        if missing or surplus:
            note(f"{name}:ports", now_bridge["ports"], kept + missing)
    return commands, changes, {"before": before, "after": after}


def ovs_vsctl(module: AnsibleModule, *arguments: str) -> str:
    """Run ovs-vsctl; a failure ends the module with the servers' last words."""
    timeout = DRY_RUN_TIMEOUT if module.check_mode else TIMEOUT
    code, output, error = module.run_command(["ovs-vsctl", f"--timeout={timeout}", *arguments])
    if code and module.check_mode:
        not_looked_at(module, "Open vSwitch's database", error.strip() or output.strip(), changes=[])
    if code:
        logs = "\n".join(unit_log(unit) for unit in ("ovsdb-server.service", "ovs-vswitchd.service"))
        module.fail_json(msg=f"ovs-vsctl failed: {error.strip() or output.strip()}\n{logs}")
    return str(output)


def read(module: AnsibleModule) -> State:
    """Read the state."""
    columns = {
        "Open_vSwitch": "external_ids",
        "Manager": "target",
        "Bridge": "name,datapath_type,ports",
        "Port": "_uuid,name",
    }
    return state_from(
        {
            name: table(ovs_vsctl(module, "--format=json", f"--columns={wanted}", "list", name))
            for name, wanted in columns.items()
        }
    )


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "external_ids": {"type": "dict", "default": {}},
            "managers": {"type": "list", "elements": "str"},
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
        },
        supports_check_mode=True,
    )
    installed = shutil.which("ovs-vsctl") is not None
    state = State() if module.check_mode and not installed else read(module)
    commands, changes, diff = plan(state, module.params)
    if commands and not module.check_mode:
        arguments: list[str] = []
        for command in commands:
            arguments += ["--", *command]
        ovs_vsctl(module, *arguments)
    module.exit_json(changed=bool(commands), changes=changes, diff=diff)


if __name__ == "__main__":
    main()
