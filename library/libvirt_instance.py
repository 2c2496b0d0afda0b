#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Compare a Nova instance with what runs on its hypervisor."""

from __future__ import annotations

DOCUMENTATION = r"""
module: libvirt_instance
short_description: Verify a Nova instance on its hypervisor
version_added: "0.1.0"
description:
  - Compares an instance in libvirt and Open vSwitch with what Nova and Neutron say. Changes nothing.
  - Compares the state of the domain, vCPUs and memory, and size and bus of the first disk. For each interface, compares
    the MAC address, the bridge of the tap device, the id of the Neutron port, whether OVN has installed its flows, the
    address that Nova passed on, and the one that the guest printed. Searches the console log.
  - Waits up to O(timeout) until everything matches, and then fails with everything that does not.
options:
  uuid:
    description: Id of the instance in Nova, which is the UUID of the domain.
    type: str
    required: true
  expected:
    description: What Nova and Neutron say. Omitted values are not compared.
    type: dict
    required: true
    suboptions:
      vcpus:
        description: vCPUs of the flavor.
        type: int
      memory_mib:
        description: Memory of the flavor in MiB.
        type: int
      disk_gib:
        description: Disk of the flavor in GiB. V(0), a disk as large as the image, is not compared.
        type: int
      disk_bus:
        description: Bus of the first disk. Empty to accept any.
        type: str
        default: virtio
      console:
        description: Regular expression (Python) that the console log must match.
        type: str
      interfaces:
        description: All network interfaces of the instance.
        type: list
        elements: dict
        suboptions:
          mac:
            description: MAC address of the Neutron port.
            type: str
            required: true
          bridge:
            description: Bridge of the interface.
            type: str
            default: br-int
          port_id:
            description: Id of the Neutron port.
            type: str
          address:
            description: Fixed IP address of the Neutron port.
            type: str
          network:
            description: Name of the network, for messages.
            type: str
  ceph_pool:
    description: Pool of Ceph that the first disk is to be in. Empty where it is not compared.
    type: str
    default: ""
  ceph_parent_pool:
    description:
      - Pool of Ceph with the image that the first disk is to be a clone of. Empty where it need not be one, as that of
        a guest that was shelved, which Nova makes independent of its image.
    type: str
    default: ""
  ceph_user:
    description: User of Ceph that asks, whose key is on this host.
    type: str
    default: nova
  address_on_console:
    description:
      - Whether the addresses must appear in the console log; most images print the one from DHCP. Ignored for a guest
        that was migrated here while it ran, because its boot is in the log of another host.
    type: bool
    default: true
  timeout:
    description: Seconds to wait until everything matches.
    type: int
    default: 60
  uri:
    description: Address of libvirt.
    type: str
    default: qemu:///system
attributes:
  check_mode:
    support: full
    description: Changes nothing.
  diff_mode:
    support: none
notes:
  - Needs python3-libvirt, C(ovs-vsctl) for bridges of Open vSwitch, and C(rbd) for O(ceph_pool).
  - Fails with all mismatches, and the last lines of the console and of the logs of QEMU, nova-compute and
    ovn-controller.
  - "Keys of an interface in Open vSwitch: https://www.ovn.org/support/dist-docs/ovn-controller.8.html
    (ovn-installed) and os-vif (iface-id, attached-mac, vm-uuid)."
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Compare the instance with Nova and Neutron
  libvirt_instance:
    uuid: 1ca6bbcd-5f9d-4e1d-9d14-954c2e40cc7e
    expected:
      vcpus: 1
      memory_mib: 512
      disk_gib: 1
      console: "kilonova-guest: ready after"
      interfaces:
        - mac: fa:16:3e:9e:b8:53
          address: 192.168.1.149
          port_id: 4507a056-8f48-4a49-b5fd-720c69c53e83
          bridge: br-int
"""

RETURN = r"""
found:
  description:
    - "The domain: name, state, virt_type, vcpus, memory_mib, console_log (path), arrived_running (whether it was
      migrated here while it ran), recorded (whether virtlogd still writes the console log)."
    - "disks: target, bus, source, format, gib (size in GiB), protocol (such as rbd for a disk in Ceph), and with
      O(ceph_pool) ceph, with parent (its image, POOL/NAME) or problem (why Ceph does not answer)."
    - "interfaces: mac, target (tap device), model, bridge, port_id, addresses (as passed on by Nova), flows (whether
      OVN has installed the flows of the port; null without OVN), vm_uuid (as in Open vSwitch), sent and received
      (packets from and to the guest, as the tap device counts them)."
  type: dict
  returned: when the domain exists
mismatches:
  description: "Everything that does not match: what, expected, found."
  type: list
  elements: dict
  returned: always
console:
  description: Last lines of the console.
  type: str
  returned: when the domain exists
"""

import json
import re
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.libvirt import ceph_disk
from ansible.module_utils.kilonova.libvirt.domains import STATES, connect, console_text, parse_domain, qemu_log
from ansible.module_utils.kilonova.system.logs import unit_log

if TYPE_CHECKING:
    import libvirt

GIB = 1024**3
OVS = ("ovs-vsctl", "--timeout=10")
FLOWS_COMMAND = ("ovs-ofctl", "--no-names", "dump-flows", "br-int")
ON_CONSOLE = "address on the console"
INTERFACES_COMMAND = (*OVS, "--format=json", "--columns=name,external_ids,error", "list", "Interface")


def ovs_interfaces(output: str) -> dict[str, dict[str, str]]:
    """Return {interface: external ids} from the JSON output of ovs-vsctl."""
    table = json.loads(output)
    found = {}
    for row in table["data"]:
        values = dict(zip(table["headings"], row, strict=True))
        found[values["name"]] = {key: value for key, value in values["external_ids"][1]}
    return found


def mismatch(what: str, expected: Any, found: Any) -> dict[str, Any]:
    """Return one mismatch."""
    return {"what": what, "expected": expected, "found": found}


def compare_interface(wanted: dict[str, Any], nic: dict[str, Any], uuid: str) -> list[dict[str, Any]]:
    """Compare an interface with the Neutron port."""
    what = f"interface {wanted['mac']}"
    problems = []
    if nic["bridge"] != wanted["bridge"]:
        problems.append(mismatch(f"{what}: bridge of {nic['target']}", wanted["bridge"], nic["bridge"] or "none"))
    if wanted.get("port_id") and nic["port_id"] != wanted["port_id"]:
        problems.append(mismatch(f"{what}: Neutron port (iface-id)", wanted["port_id"], nic["port_id"] or "none"))
    if nic["flows"] is False:
        problems.append(mismatch(f"{what}: flows by OVN (ovn-installed)", "true", "not set"))
    if nic["vm_uuid"] and nic["vm_uuid"] != uuid:
        problems.append(mismatch(f"{what}: instance that Open vSwitch has for it (vm-uuid)", uuid, nic["vm_uuid"]))
    # Nova writes the addresses when it defines the domain: those of ports attached later are missing.
    if wanted.get("address") and nic["addresses"] and wanted["address"] not in nic["addresses"]:
        given = ", ".join(nic["addresses"])
        problems.append(mismatch(f"{what}: address that Nova was given", wanted["address"], given))
    return problems


def shows_address(text: str, address: str) -> bool:
    """Return whether a text has an address that is not part of a longer one."""
    return re.search(rf"(?<![\w.:]){re.escape(address)}(?![\w.:]*\w)", text) is not None


def compare(
    uuid: str,
    expected: dict[str, Any],
    found: dict[str, Any],
    console: str,
    address_on_console: bool,
    ceph_pools: tuple[str, str] = ("", ""),
) -> list[dict[str, Any]]:
    """Return all mismatches. ceph_pools: that of the first disk, and that of its image."""
    problems = []
    if found["state"] != "running":
        problems.append(mismatch("state of the domain", "running", found["state"]))
    for key, what in (("vcpus", "vCPUs"), ("memory_mib", "memory in MiB")):
        if expected.get(key) is not None and expected[key] != found[key]:
            problems.append(mismatch(what, expected[key], found[key]))

    if not found["disks"]:
        problems.append(mismatch("disks", "at least one", "none"))
    else:
        disk = found["disks"][0]
        if expected.get("disk_gib") and disk["gib"] != expected["disk_gib"]:
            problems.append(mismatch(f"size of disk {disk['target']} in GiB", expected["disk_gib"], disk["gib"]))
        if expected.get("disk_bus") and disk["bus"] != expected["disk_bus"]:
            problems.append(mismatch(f"bus of disk {disk['target']}", expected["disk_bus"], disk["bus"]))
        if ceph_pools[0]:
            problems += [mismatch(*one) for one in ceph_disk.compare(disk, *ceph_pools)]

    if expected.get("interfaces") is not None:
        present = {nic["mac"]: nic for nic in found["interfaces"]}
        wanted_macs = [wanted["mac"].lower() for wanted in expected["interfaces"]]
        for wanted in expected["interfaces"]:
            nic = present.get(wanted["mac"].lower())
            if nic is None:
                others = ", ".join(present) or "no interface"
                problems.append(mismatch(f"interface {wanted['mac']}", "present", others))
                continue
            problems += compare_interface(wanted, nic, uuid)
            address = wanted.get("address")
            if address_on_console and address and not (found["arrived_running"] or shows_address(console, address)):
                seen = f"not printed; the guest sent {nic['sent']} packets and got {nic['received']}"
                problems.append(mismatch(f"interface {wanted['mac']}: {ON_CONSOLE}", address, seen))
        for mac in sorted(set(present) - set(wanted_macs)):
            problems.append(mismatch("interfaces", ", ".join(wanted_macs) or "none", f"also {mac}"))

    if not found["recorded"]:
        lost = "virtlogd was restarted after the guest started; openstack server reboot --hard brings it back"
        problems.append(mismatch("console log", "recorded by virtlogd", lost))
    if expected.get("console") and not re.search(expected["console"], console, re.M):
        problems.append(mismatch("console log", f"matches '{expected['console']}'", "no match" if console else "empty"))
    return problems


def run(arguments: tuple[str, ...]) -> str:
    """Return the output of a command, '' if it fails or does not exist."""
    try:
        done = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def bridge_of(tap: str, in_ovs: bool, sysfs: Path = Path("/sys/class/net")) -> str:
    """Return the bridge of a tap device in Open vSwitch or the kernel, '' for none."""
    if in_ovs:
        return run((*OVS, "iface-to-br", tap)).strip()
    master = sysfs / tap / "master"
    return master.resolve().name if master.exists() else ""


def packets(tap: str, sysfs: Path = Path("/sys/class/net")) -> dict[str, int]:
    """Return how many packets the guest behind a tap device sent and received."""
    counted = {}
    # What the kernel receives from the device is what the guest sends.
    for key, counter in (("sent", "rx_packets"), ("received", "tx_packets")):
        try:
            counted[key] = int((sysfs / tap / "statistics" / counter).read_text(encoding="ascii"))
        except OSError:
            counted[key] = 0
    return counted


def dhcp_requests(flows: str, interface: str) -> str:
    """Return in words what the flows of the integration bridge did with the DHCP requests of "interface MAC: ..."."""
    source = f"dl_src={interface.split()[1].rstrip(':').lower()},"
    own = [line for line in flows.splitlines() if source in line and "tp_src=68" in line]
    answering = [line for line in own if "controller(" in line]
    if not answering:
        return f"no flow passes its DHCP requests on to ovn-controller ({len(own)} others match them)"
    passed = sum(int(count) for line in answering for count in re.findall(r"n_packets=(\d+)", line))
    return f"{passed} of its DHCP requests were passed on to ovn-controller"


def started(pid: str, proc: Path = Path("/proc")) -> int:
    """Return when a process started, in clock ticks since boot; 0 if it does not run."""
    try:
        return int((proc / pid / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def console_is_recorded(name: str, state: Path = Path("/run/libvirt/qemu"), proc: Path = Path("/proc")) -> bool:
    """Return whether the virtlogd that runs is the one that a domain's QEMU writes its console to.

    QEMU has the pipe of the virtlogd that ran when it started. Without that one, nothing is written any more.
    """
    try:
        qemu = started((state / f"{name}.pid").read_text(encoding="ascii").strip(), proc)
    except OSError:
        return True
    virtlogd = started(run(("systemctl", "show", "--property=MainPID", "--value", "virtlogd.service")).strip(), proc)
    return not qemu or not virtlogd or virtlogd <= qemu


def arrived_running(name: str, state: Path = Path("/run/libvirt/qemu"), proc: Path = Path("/proc")) -> bool:
    """Return whether a domain was migrated here while it ran, so that its boot is not in the console log."""
    try:
        pid = (state / f"{name}.pid").read_text(encoding="ascii").strip()
        return b"-incoming" in (proc / pid / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def examine(domain: libvirt.virDomain, ceph_user: str = "") -> dict[str, Any]:
    """Return the state of a domain. Raises libvirtError if it ends meanwhile.

    ceph_user: who asks Ceph about disks that are there; empty for nobody.
    """
    parsed = parse_domain(domain.XMLDesc())
    state = domain.state()[0]
    plugged = run(INTERFACES_COMMAND)
    interfaces = ovs_interfaces(plugged) if plugged else {}
    found: dict[str, Any] = {
        "name": parsed.name,
        "state": STATES[state] if state < len(STATES) else str(state),
        "virt_type": parsed.virt_type,
        "vcpus": parsed.vcpus,
        "memory_mib": parsed.memory_mib,
        "console_log": parsed.console_log,
        "arrived_running": arrived_running(parsed.name),
        "recorded": console_is_recorded(parsed.name),
        "disks": [],
        "interfaces": [],
    }
    for disk in parsed.disks:
        in_ceph = ceph_user and disk.protocol == "rbd"
        found["disks"].append(
            {**asdict(disk), "gib": round(domain.blockInfo(disk.target)[0] / GIB, 3)}
            | ({"ceph": ceph_disk.describe(disk.source, ceph_user)} if in_ceph else {})
        )
    for nic in parsed.nics:
        ids = interfaces.get(nic.target, {})
        port_id = ids.get("iface-id") or nic.port_id
        found["interfaces"].append(
            {
                **asdict(nic),
                **packets(nic.target),
                "bridge": bridge_of(nic.target, nic.target in interfaces) or nic.bridge,
                "port_id": port_id,
                "addresses": parsed.addresses.get(port_id, []),
                "flows": ids.get("ovn-installed") == "true" if ids else None,
                "vm_uuid": ids.get("vm-uuid", ""),
            }
        )
    return found


def report(uuid: str, problems: list[dict[str, Any]], name: str, console: str) -> str:
    """Return the failure message."""
    lines = [f"Instance {uuid} is not what Nova and Neutron say:"]
    lines += [f"- {problem['what']}: expected {problem['expected']}, found {problem['found']}" for problem in problems]
    if name:
        lines += ["--- console", "\n".join(console.splitlines()[-20:]) or "(nothing)", qemu_log(name, 10)]
    lines += [unit_log(unit, 10) for unit in ("nova-compute", "ovn-host" if name else "libvirtd")]
    return "\n".join(lines)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "uuid": {"type": "str", "required": True},
            "expected": {
                "type": "dict",
                "required": True,
                "options": {
                    "vcpus": {"type": "int"},
                    "memory_mib": {"type": "int"},
                    "disk_gib": {"type": "int"},
                    "disk_bus": {"type": "str", "default": "virtio"},
                    "console": {"type": "str"},
                    "interfaces": {
                        "type": "list",
                        "elements": "dict",
                        "options": {
                            "mac": {"type": "str", "required": True},
                            "bridge": {"type": "str", "default": "br-int"},
                            "port_id": {"type": "str"},
                            "address": {"type": "str"},
                            "network": {"type": "str"},
                        },
                    },
                },
            },
            "ceph_pool": {"type": "str", "default": ""},
            "ceph_parent_pool": {"type": "str", "default": ""},
            "ceph_user": {"type": "str", "default": "nova"},
            "address_on_console": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 60},
            "uri": {"type": "str", "default": "qemu:///system"},
        },
        supports_check_mode=True,
    )
    params = module.params
    uuid, expected = params["uuid"].lower(), params["expected"]
    ceph_pools = params["ceph_pool"], params["ceph_parent_pool"]
    libvirt, connection = connect(module, params["uri"])
    deadline = time.monotonic() + params["timeout"]
    while True:
        found: dict[str, Any] = {}
        console = ""
        try:
            found = examine(connection.lookupByUUIDString(uuid), params["ceph_user"] if ceph_pools[0] else "")
            console = console_text(found["console_log"]) if found["console_log"] else ""
            problems = compare(uuid, expected, found, console, params["address_on_console"], ceph_pools)
        except libvirt.libvirtError as error:
            present = ", ".join(f"{domain.name()} ({domain.UUIDString()})" for domain in connection.listAllDomains())
            problems = [mismatch("domain", f"one with the UUID {uuid}", f"{error}; present: {present or 'none'}")]
        if not problems:
            break
        # A console that is not recorded any more will not be.
        if time.monotonic() >= deadline or not found.get("recorded", True):
            for problem in problems:
                if problem["what"].endswith(ON_CONSOLE):
                    problem["found"] += f"; {dhcp_requests(run(FLOWS_COMMAND), problem['what'])}"
            module.fail_json(
                msg=report(uuid, problems, found.get("name", ""), console), mismatches=problems, found=found
            )
        time.sleep(1)
    module.exit_json(changed=False, found=found, mismatches=[], console="\n".join(console.splitlines()[-20:]))


if __name__ == "__main__":
    main()
