#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Create, start, stop, reboot and remove one lab machine."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: lab_machine
short_description: Manage a disposable Debian machine on this computer
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - A lab machine is a systemd-nspawn container with systemd as PID 1, an ssh server, and a network namespace whose
    C(eth0) is connected to the bridge of the lab. Its files are a layer over those of a base image (overlayfs, or a
    copy where overlayfs cannot be used), which mmdebstrap builds once in C(/var/cache/kilonova/lab). It gets the
    packages that earlier machines have downloaded.
  - The machine keeps running when Ansible ends. A reboot from inside boots it again.
  - Remains of a killed run (a machine without supervisor, an incomplete tree, a namespace or interface without a
    machine) are found on the computer, not in records. O(state=started) takes them over, O(state=absent) removes them.
  - Must run as root on the computer of the lab, after M(lab_computer).
  - See systemd-nspawn(1), and systemd(1) for the signals.
options:
  lab_id:
    description: Identifier of the lab, eight hexadecimal digits.
    type: str
    required: true
  name:
    description: Host name of the machine.
    type: str
    required: true
  address:
    description: IPv4 address of the machine in the subnet of the lab.
    type: str
    required: true
  interfaces:
    description:
      - Interfaces in addition to C(eth0). Interfaces of the same name share a network that connects only the machines
        of the lab. This computer has no address there.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: C(eth1) to C(eth9).
        type: str
        required: true
      address:
        description: IPv4 address with prefix length. If empty, the interface is not configured and stays down.
        type: str
        default: ""
  shared_directories:
    description:
      - Absolute paths of directories that this machine shares with others of the lab for which they are given, as if a
        file server had them. They last as long as the lab. A change counts from the next start.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(started) creates the machine if needed, and boots it.
      - V(stopped) shuts it down and keeps its disk.
      - V(rebooted) reboots it; a stopped machine is started.
      - V(absent) removes it completely, and fails with a list if something is left.
    type: str
    choices: [started, stopped, rebooted, absent]
    default: started
  suite:
    description: Debian release of the base image.
    type: str
    default: trixie
  packages:
    description: Packages in the base image in addition to the essential ones.
    type: list
    elements: str
    default: []
  mirror:
    description: URL of the package archive; empty for the default of mmdebstrap.
    type: str
    default: ""
  image_max_age:
    description: Age in days at which the base image is built again for a new machine.
    type: float
    default: 14
  nameservers:
    description: IP addresses of resolvers; empty for those of this computer.
    type: list
    elements: str
    default: []
  kvm:
    description: Give the machine C(/dev/kvm) if it works on this computer.
    type: bool
    default: true
  boot_timeout:
    description: Seconds that a boot may take until systemd has started everything, and a shutdown before a reboot.
    type: float
    default: 300
  stop_timeout:
    description: Seconds that a shutdown may take before the machine is killed.
    type: float
    default: 120
attributes:
  check_mode: {support: full, description: Changes nothing.}
  diff_mode: {support: full, description: Shows the state before and after.}
"""

EXAMPLES = r"""
- name: Create and start the machine
  lab_machine:
    lab_id: 1a2b3c4d
    name: nova1
    address: 10.208.7.10

- name: Create one with two more interfaces
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
  description: State of the machine.
  returned: success
  type: str
  sample: running
system_state:
  description: Output of C(systemctl is-system-running) after a boot.
  returned: when the machine was booted
  type: str
  sample: running
created:
  description: Whether the machine was created.
  returned: success
  type: bool
left_behind:
  description: Remains of a machine without supervisor that were taken over or removed.
  returned: success
  type: list
  elements: str
packages_cached:
  description: Number of packages that were added to the cache.
  returned: O(state=stopped) and O(state=absent)
  type: int
console_log:
  description: File with the console output.
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
SHARED = re.compile(r"(/[A-Za-z0-9._-]+)+")
LONGEST_NAME = 53  # a container name has at most 64 characters, 11 of which are for the lab


@dataclass
class Outcome:
    """What was done, for the result."""

    before: str
    after: str = ""
    changed: bool = False
    created: bool = False
    left_behind: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def check_name(name: str) -> None:
    """Raise LabError for a name that a machine cannot have."""
    if len(name) > LONGEST_NAME or not NAME.fullmatch(name):
        raise LabError(
            f"{name!r} cannot be a lab machine's host name: use lower-case letters, digits and hyphens, at most "
            f"{LONGEST_NAME} characters, and rename the host in the inventory."
        )


def check_interfaces(interfaces: Iterable[Interface]) -> None:
    """Raise LabError for interfaces that a machine cannot have."""
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


def check_shared_directories(paths: Iterable[str]) -> None:
    """Raise LabError for directories that machines cannot share."""
    for path in paths:
        if not SHARED.fullmatch(path) or ".." in path.split("/"):
            raise LabError(
                f"lab_shared_directories has {path!r}, which is not an absolute path of letters, digits and ._-. Write "
                "one such as /var/lib/glance/images."
            )


def state_of(machine: Machine) -> str:
    """Return the state of the machine on this computer."""
    now = processes(machine)
    if now.whole(unit_active(machine)):
        return "running"
    if now.any:
        return "left behind"
    if has_tree(machine):
        return "stopped"
    return "incomplete" if Path(machine.root).exists() else "absent"


def apply(machine: Machine, params: dict[str, Any], check_mode: bool) -> Outcome:
    """Bring the machine to the wanted state."""
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
    """Shut the machine down and remove its runtime state."""
    outcome.after = "stopped" if has_tree(machine) else "absent"
    outcome.changed = bool(leftovers(machine))
    if not outcome.changed or check_mode:
        return outcome
    if not shut_down(machine, params["stop_timeout"]) and outcome.before == "running":
        outcome.warnings.append(
            f"{machine.name} did not shut down within {params['stop_timeout']:.0f} s and was killed (stop_timeout)."
        )
    clear_runtime(machine)
    outcome.extra["packages_cached"] = collect_packages(archives(Path(machine.directory)))
    left = leftovers(machine)
    if left:
        raise LabError(f"The lab machine {machine.name} was stopped, but this is left: {', '.join(left)}")
    return outcome


def machine_from(params: dict[str, Any], check_mode: bool) -> Machine:
    """Return the machine that the options describe."""
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
        # Stop or remove the machine as it was created, even if the inventory has changed.
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
        shared_directories=tuple(params["shared_directories"]),
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
            "shared_directories": {"type": "list", "elements": "str", "default": []},
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
            check_shared_directories(machine.shared_directories)
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
