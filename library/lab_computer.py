#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Prepare this computer for a lab, or remove the lab."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: lab_computer
short_description: Manage tools, directory, ssh key and network of a lab on this computer
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - With V(present), provides what the machines of a lab share. This is the tools, the directory
    C(/var/lib/kilonova/lab/ID) with an ssh key pair, a bridge with the first address of the subnet and the MTU of the
    uplink, the nftables table C(kilonova_lab_ID) (NAT and forwarding), and IPv4 forwarding.
  - Fails before any change if the subnet overlaps a network of this computer or another lab.
  - With V(absent), removes all of it including the machines, and fails with a list if something is left. Removing the
    last lab restores the former setting of IPv4 forwarding. The cache in C(/var/cache/kilonova/lab) stays.
  - Must run as root on the computer of the lab.
options:
  lab_id:
    description: Identifier of the lab, eight hexadecimal digits.
    type: str
    required: true
  project:
    description: Directory of the checkout that the lab belongs to, for messages.
    type: str
    default: ""
  subnet:
    description: IPv4 subnet of the lab, a /24 to /28. Required for V(present).
    type: str
  install:
    description: Install the packages of missing tools, on Debian and derivatives.
    type: bool
    default: true
  state:
    description: Whether the lab exists.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode: {support: full, description: Changes nothing.}
  diff_mode: {support: full, description: Shows what is missing or left.}
"""

EXAMPLES = r"""
- name: Prepare this computer
  lab_computer:
    lab_id: 1a2b3c4d
    project: /home/me/kilonova
    subnet: 10.208.7.0/24
"""

RETURN = r"""
bridge:
  description: Name of the bridge of the lab.
  returned: success
  type: str
  sample: kl1a2b3c4d
address:
  description: Address of this computer on the bridge.
  returned: O(state=present)
  type: str
  sample: 10.208.7.1
mtu:
  description: MTU of the network of the lab in bytes.
  returned: O(state=present)
  type: int
installed:
  description: Packages that were installed.
  returned: O(state=present)
  type: list
  elements: str
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.lab.boot import Machine, bridge_name, machine_from_record, table_name
from ansible.module_utils.kilonova.lab.computer import (
    NETNS,
    STATE,
    LabError,
    lab_directory,
    locked,
    missing_message,
    missing_packages,
    mounts_below,
    require_root,
    run,
    write_file,
)
from ansible.module_utils.kilonova.lab.lifecycle import remove
from ansible.module_utils.kilonova.lab.network import (
    IP_FORWARD,
    bridge_problems,
    check_overlaps,
    forward_warning,
    has_table,
    lab_subnet,
    network_table,
    remember_computer,
    restore_computer,
    set_bridge,
    set_table,
    uplink_mtu,
)

LAB_ID = re.compile(r"[0-9a-f]{8}")


def ensure_tools(install: bool, check_mode: bool) -> list[str]:
    """Install missing tools; return their packages."""
    missing = missing_packages()
    packages = sorted(set(missing.values()))
    if not missing or check_mode and install:
        return packages
    if not install or not shutil.which("apt-get") or not Path("/etc/debian_version").exists():
        raise LabError(missing_message(missing))
    install_command = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--no-install-recommends"]
    if run([*install_command, *packages], check=False, timeout=900).returncode != 0:
        run(["apt-get", "update"], timeout=300)
        run([*install_command, *packages], timeout=900)
    missing = missing_packages()
    if missing:
        raise LabError(missing_message(missing))
    return packages


def problems(lab_id: str, project: str, subnet: str, address: str, mtu: int) -> list[str]:
    """Return what is missing, one line of the diff each."""
    directory = lab_directory(lab_id)
    found = []
    wanted = record(project, subnet)
    if not (directory / "lab.json").exists() or (directory / "lab.json").read_text() != wanted:
        found.append(f"directory {directory} with lab.json")
    if not (directory / "ssh/id_ed25519.pub").exists():
        found.append(f"ssh key {directory}/ssh/id_ed25519")
    if IP_FORWARD.read_text().strip() == "0":
        found.append("IPv4 forwarding")
    found += bridge_problems(lab_id, address, mtu)
    if not has_table(lab_id, network_table(lab_id, subnet)):
        found.append(f"nftables table ip {table_name(lab_id)}")
    return found


def record(project: str, subnet: str) -> str:
    """Return the content of lab.json."""
    return json.dumps({"project": project, "subnet": subnet}, indent=2) + "\n"


def make_directory(lab_id: str, project: str, subnet: str) -> None:
    """Create the directory of the lab with the ssh key."""
    directory = lab_directory(lab_id)
    for part in (".", "ssh", "machines", "locks"):
        (directory / part).mkdir(parents=True, exist_ok=True)
        (directory / part).chmod(0o700)
    key = directory / "ssh/id_ed25519"
    if not key.with_suffix(".pub").exists():
        key.unlink(missing_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"kilonova-lab-{lab_id}", "-f", str(key)])
    write_file(directory / "ssh_config", f"Include {directory}/machines/*/ssh_config\n", 0o600)
    write_file(directory / "lab.json", record(project, subnet))


def present(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Provide what the machines share; return the result."""
    lab_id = params["lab_id"]
    network = lab_subnet(params["subnet"])
    installed = ensure_tools(params["install"], check_mode)
    address = f"{network[1]}/{network.prefixlen}"
    result: dict[str, Any] = {
        "changed": bool(installed),
        "installed": installed,
        "bridge": bridge_name(lab_id),
        "address": str(network[1]),
    }
    if installed and check_mode:
        return {**result, "mtu": 0, "diff": {"before": "", "after": missing_message(missing_packages()) + "\n"}}
    mtu = result["mtu"] = uplink_mtu()
    found = problems(lab_id, params["project"], str(network), address, mtu)
    result["diff"] = {"before": "", "after": "".join(f"{line}\n" for line in found)}
    if not found:
        return result
    result["changed"] = True
    if check_mode:
        check_overlaps(network, lab_id)
        return result
    with locked(STATE / ".lock"):
        check_overlaps(network, lab_id)
        remember_computer()
        make_directory(lab_id, params["project"], str(network))
        IP_FORWARD.write_text("1\n")
        set_bridge(lab_id, address, mtu)
        set_table(lab_id, str(network))
    left = problems(lab_id, params["project"], str(network), address, mtu)
    if left:
        raise LabError(f"The network of the lab was set up, but this is still missing: {', '.join(left)}")
    result["warning"] = forward_warning(lab_id)
    return result


def machines(lab_id: str) -> list[Machine]:
    """Return the machines that have a directory, whether they are in the inventory or not."""
    found = []
    for directory in sorted((lab_directory(lab_id) / "machines").glob("*/")):
        try:
            found.append(machine_from_record(json.loads((directory / "machine.json").read_text())))
        except (OSError, ValueError, TypeError):
            # Incomplete. Only the name of its interface needs the address.
            found.append(Machine(lab_id, directory.name, "0.0.0.none", 24, "", 1500, str(directory)))
    return found


def lab_leftovers(lab_id: str) -> list[str]:
    """Return what exists of a lab on this computer."""
    bridge = bridge_name(lab_id)
    directory = lab_directory(lab_id)
    found = [f"interface {path.name}" for path in sorted(Path("/sys/class/net").glob(f"{bridge}*"))]
    if NETNS.is_dir():
        found += [f"network namespace {path.name}" for path in sorted(NETNS.glob(f"{bridge}-*"))]
    if shutil.which("nft") and has_table(lab_id):
        found.append(f"nftables table ip {table_name(lab_id)}")
    found += [f"mount {point}" for point in mounts_below(str(directory))]
    if directory.exists():
        found.append(f"directory {directory}")
    return found


def absent(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Remove the lab; return the result."""
    lab_id = params["lab_id"]
    found = lab_leftovers(lab_id)
    result: dict[str, Any] = {
        "changed": bool(found),
        "bridge": bridge_name(lab_id),
        "diff": {"before": "".join(f"{line}\n" for line in found), "after": ""},
    }
    if not found or check_mode:
        return result
    with locked(STATE / ".lock"):
        for machine in machines(lab_id):
            remove(machine)
        for path in NETNS.glob(f"{bridge_name(lab_id)}-*"):
            run(["ip", "netns", "delete", path.name])
        for path in Path("/sys/class/net").glob(f"{bridge_name(lab_id)}*"):
            run(["ip", "link", "delete", path.name], check=False)
        if has_table(lab_id):
            run(["nft", "delete", "table", "ip", table_name(lab_id)])
        directory = lab_directory(lab_id)
        if directory.exists() and not mounts_below(str(directory)):
            shutil.rmtree(directory)
        if not any(STATE.glob("*/lab.json")):
            restore_computer()
    left = lab_leftovers(lab_id)
    if left:
        raise LabError(f"The lab {lab_id} was removed, but this is left: {', '.join(left)}")
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "lab_id": {"type": "str", "required": True},
            "project": {"type": "str", "default": ""},
            "subnet": {"type": "str"},
            "install": {"type": "bool", "default": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ["subnet"])],
        supports_check_mode=True,
    )
    try:
        if not LAB_ID.fullmatch(module.params["lab_id"]):
            raise LabError(f"lab_id is {module.params['lab_id']!r}; it must be eight hexadecimal digits.")
        require_root()
        action = present if module.params["state"] == "present" else absent
        result = action(module.params, module.check_mode)
    except LabError as error:
        module.fail_json(msg=str(error))
    warning = result.pop("warning", "")
    if warning:
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
