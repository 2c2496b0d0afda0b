#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Create, start, stop, reboot and remove one lab machine."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: lab_machine
short_description: A disposable Debian machine on this computer
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - A lab machine is a systemd-nspawn container with systemd as its PID 1, an ssh server, and a network namespace
    whose C(eth0) is joined to the lab's bridge. It is made from a base image that mmdebstrap builds once and that is
    kept in C(/var/cache/kilonova/lab), and given the packages that earlier machines have downloaded.
  - The machine outlives Ansible. A reboot asked for inside boots it again.
  - What a killed run has left behind (a machine without its supervisor, a half-made tree, a namespace or interface
    without a machine) is recognised by looking at the computer, not at records; it is taken over by C(state=started)
    and removed by C(state=absent).
  - Runs as root on the computer that holds the lab, after M(lab_computer).
  - What systemd-nspawn and systemd do is in systemd-nspawn(1) and, for the signals, in systemd(1).
options:
  lab_id:
    description: The lab's identifier, eight hexadecimal digits.
    type: str
    required: true
  name:
    description: The machine's host name.
    type: str
    required: true
  address:
    description: The machine's IPv4 address, inside the lab's subnet.
    type: str
    required: true
  interfaces:
    description:
      - Interfaces that the machine has beside C(eth0). Those of one name are on one wire in the whole lab, which leads
        to the lab's machines only. This computer has no address there.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: C(eth1) to C(eth9).
        type: str
        required: true
      address:
        description: IPv4 address with prefix length. Without one, nothing configures the interface, and it is down.
        type: str
        default: ""
  state:
    description:
      - V(started) creates the machine if there is none, and boots it.
      - V(stopped) shuts it down and keeps its disk.
      - V(rebooted) lets its systemd reboot; a stopped machine is started.
      - V(absent) removes it and everything of it, and fails with a list if something is left.
    type: str
    choices: [started, stopped, rebooted, absent]
    default: started
  suite:
    description: Debian release of the base image.
    type: str
    default: trixie
  packages:
    description: Packages in the base image, besides those that Debian marks as essential.
    type: list
    elements: str
    default: []
  mirror:
    description: Package archive to build from; empty for mmdebstrap's own choice.
    type: str
    default: ""
  image_max_age:
    description: A new machine is made from a base image no older than this, in days.
    type: float
    default: 14
  nameservers:
    description: Resolvers for the machine; empty for those that this computer uses.
    type: list
    elements: str
    default: []
  kvm:
    description: Give the machine C(/dev/kvm) if guests can really run on it.
    type: bool
    default: true
  boot_timeout:
    description: Seconds that a boot may take until systemd has started everything; for a reboot, its shutdown too.
    type: float
    default: 300
  stop_timeout:
    description: Seconds that a shutdown may take before the machine is killed.
    type: float
    default: 120
attributes:
  check_mode: {support: full, description: Reports what would be done.}
  diff_mode: {support: full, description: The machine's state before and after.}
"""

EXAMPLES = r"""
- name: Create and start the machine
  lab_machine:
    lab_id: 1a2b3c4d
    name: nova1
    address: 10.208.7.10

- name: Create one with two interfaces more
  lab_machine:
    lab_id: 1a2b3c4d
    name: nova2
    address: 10.208.7.11
    interfaces:
      - name: eth1
      - name: eth2
        address: 198.18.1.11/24

- name: Reboot it
  lab_machine:
    lab_id: 1a2b3c4d
    name: nova1
    address: 10.208.7.10
    state: rebooted
"""

RETURN = r"""
state:
  description: What the machine is now.
  returned: success
  type: str
  sample: running
system_state:
  description: What C(systemctl is-system-running) says after a boot.
  returned: when the machine was booted
  type: str
  sample: running
created:
  description: Whether the machine was made by this call.
  returned: success
  type: bool
left_behind:
  description: What was found of an earlier machine that no supervisor held, and was taken over or removed.
  returned: success
  type: list
  elements: str
packages_cached:
  description: Number of packages that the machine added to the shared cache.
  returned: O(state=stopped) and O(state=absent)
  type: int
console_log:
  description: File with the machine's console output.
  returned: success
  type: str
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.lab.boot import Interface, Machine, bridge_name
from ansible.module_utils.kilonova.lab.computer import (
    LabError,
    lab_directory,
    link_exists,
    locked,
    processes,
    read_json,
    require_root,
    require_tools,
    this_computer,
    unit_active,
)
from ansible.module_utils.kilonova.lab.image import Recipe, collect_packages
from ansible.module_utils.kilonova.lab.lifecycle import (
    archives,
    check_record,
    clear_runtime,
    has_tree,
    leftovers,
    machine_lock,
    make_tree,
    reboot,
    remove,
    shut_down,
    start,
)
from ansible.module_utils.kilonova.lab.network import gateway_of, resolver_text

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
INTERFACE = re.compile(r"eth[1-9]")
LONGEST_NAME = 53  # the container's name is at most 64 characters, and ten are the lab's


@dataclass
class Outcome:
    before: str
    after: str = ""
    changed: bool = False
    created: bool = False
    left_behind: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def check_name(name: str) -> None:
    if len(name) > LONGEST_NAME or not NAME.fullmatch(name):
        raise LabError(
            f"{name!r} cannot be a lab machine's host name: use lower-case letters, digits and hyphens, at most "
            f"{LONGEST_NAME} characters, and rename the host in the inventory."
        )


def check_interfaces(interfaces: Iterable[Interface]) -> None:
    seen: set[str] = set()
    for one in interfaces:
        if not INTERFACE.fullmatch(one.name) or one.name in seen:
            raise LabError(
                f"lab_interfaces has an interface {one.name!r}: beside eth0 there can be eth1 to eth9, each once."
            )
        seen.add(one.name)
        try:
            valid = not one.address or ("/" in one.address and bool(ipaddress.IPv4Interface(one.address)))
        except ValueError:
            valid = False
        if not valid:
            raise LabError(
                f"lab_interfaces gives {one.name} the address {one.address!r}, which is not an IPv4 address with "
                "prefix length. Write one such as 198.18.1.10/24, or none."
            )


def state_of(machine: Machine) -> str:
    now = processes(machine)
    if now.whole(unit_active(machine)):
        return "running"
    if now.any:
        return "left behind"
    if has_tree(machine):
        return "stopped"
    return "half made" if Path(machine.root + ".partial").exists() or Path(machine.root).exists() else "absent"


def apply(machine: Machine, params: dict[str, Any], check_mode: bool) -> Outcome:
    outcome = Outcome(before=state_of(machine))
    if outcome.before != "running":
        outcome.left_behind = leftovers(machine)
    wanted = params["state"]
    if wanted == "absent":
        outcome.after = "absent"
        outcome.changed = outcome.before != "absent" or bool(outcome.left_behind) or Path(machine.directory).exists()
        if outcome.changed and not check_mode:
            outcome.extra["packages_cached"] = remove(machine)
        return outcome
    if wanted == "stopped":
        return stop(machine, params, check_mode, outcome)
    check_record(machine)
    outcome.after = "running"
    outcome.changed = wanted == "rebooted" or outcome.before != "running"
    outcome.created = not has_tree(machine)
    if not outcome.changed or check_mode:
        return outcome
    computer = this_computer(params["kvm"])
    if outcome.before == "running":
        outcome.extra["system_state"] = reboot(machine, params["boot_timeout"])
        return outcome
    if outcome.left_behind:
        shut_down(machine, params["stop_timeout"])
        clear_runtime(machine)
    if outcome.created:
        recipe = Recipe(params["suite"], tuple(params["packages"]), params["mirror"])
        outcome.warnings += make_tree(machine, computer, recipe, params["image_max_age"])
    outcome.extra["system_state"] = start(
        machine, computer, resolver_text(params["nameservers"]), params["boot_timeout"]
    )
    return outcome


def stop(machine: Machine, params: dict[str, Any], check_mode: bool, outcome: Outcome) -> Outcome:
    outcome.after = "stopped" if has_tree(machine) else "absent"
    outcome.changed = bool(leftovers(machine))
    if not outcome.changed or check_mode:
        return outcome
    if not shut_down(machine, params["stop_timeout"]) and outcome.before == "running":
        outcome.warnings.append(
            f"{machine.name} did not shut down within {params['stop_timeout']:.0f} s and was killed (stop_timeout)."
        )
    clear_runtime(machine)
    outcome.extra["packages_cached"] = collect_packages(archives(machine))
    left = leftovers(machine)
    if left:
        raise LabError(f"The lab machine {machine.name} is stopped, but this is left of it: {', '.join(left)}")
    return outcome


def machine_from(params: dict[str, Any], check_mode: bool) -> Machine:
    lab = lab_directory(params["lab_id"])
    record = read_json(lab / "lab.json")
    starts = params["state"] in ("started", "rebooted")
    bridge = bridge_name(params["lab_id"])
    if starts and not check_mode and not (record and link_exists(bridge)):
        raise LabError(
            f"The lab {params['lab_id']} has no network on this computer ({lab}/lab.json, interface {bridge}). "
            "Call lab_computer first, or run playbooks/lab-create.yml."
        )
    subnet = record.get("subnet", f"{params['address']}/24")
    mtu = Path("/sys/class/net", bridge, "mtu")
    address = params["address"]
    if not starts:
        # What is to go is the machine that was made, whatever the inventory has come to say since.
        address = read_json(lab / "machines" / params["name"] / "machine.json").get("address", address)
    return Machine(
        lab_id=params["lab_id"],
        name=params["name"],
        address=address,
        prefix=int(subnet.split("/")[1]),
        gateway=gateway_of(subnet),
        mtu=int(mtu.read_text()) if mtu.exists() else 1500,
        directory=str(lab / "machines" / params["name"]),
        interfaces=tuple(Interface(**entry) for entry in params["interfaces"]),
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "lab_id": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "address": {"type": "str", "required": True},
            "interfaces": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": {"type": "str", "required": True}, "address": {"type": "str", "default": ""}},
            },
            "state": {"type": "str", "choices": ["started", "stopped", "rebooted", "absent"], "default": "started"},
            "suite": {"type": "str", "default": "trixie"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "mirror": {"type": "str", "default": ""},
            "image_max_age": {"type": "float", "default": 14},
            "nameservers": {"type": "list", "elements": "str", "default": []},
            "kvm": {"type": "bool", "default": True},
            "boot_timeout": {"type": "float", "default": 300},
            "stop_timeout": {"type": "float", "default": 120},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        require_root()
        check_name(params["name"])
        starts = params["state"] in ("started", "rebooted")
        if not starts and not lab_directory(params["lab_id"]).exists():
            module.exit_json(changed=False, state="absent", created=False, left_behind=[], packages_cached=0)
        if starts and not module.check_mode:
            require_tools()
        machine = machine_from(params, module.check_mode)
        if starts:
            check_interfaces(machine.interfaces)
        if module.check_mode:
            outcome = apply(machine, params, True)
        else:
            with locked(machine_lock(machine)):
                outcome = apply(machine, params, False)
    except LabError as error:
        module.fail_json(msg=str(error))
    for warning in outcome.warnings:
        module.warn(warning)
    module.exit_json(
        changed=outcome.changed,
        state=outcome.after,
        created=outcome.created,
        left_behind=outcome.left_behind,
        console_log=f"{machine.directory}/console.log",
        diff={"before": f"{machine.name}: {outcome.before}\n", "after": f"{machine.name}: {outcome.after}\n"},
        **outcome.extra,
    )


if __name__ == "__main__":
    main()
