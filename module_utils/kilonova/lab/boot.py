# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""How a lab machine is booted: command line, network, supervisor.

Everything here turns values into text and argument lists; nothing here touches the computer, so that the kind of
computer at hand (cgroup v1 or v2, systemd as PID 1 or not) does not limit what a test can look at.

A reboot asked for inside a machine ends systemd-nspawn with status 133 (``--keep-unit``). Who started it then runs
``prepare`` and ``boot`` again: a systemd service (RestartForceExitStatus=133) where systemd is PID 1, the loop of the
``supervise`` script elsewhere. ``prepare`` makes the network namespace anew each time, because eth0 keeps its address
in one that is used again, and ifup then fails.

Every machine has eth0, on the lab's bridge. The interfaces beside it, eth1 to eth9, are for other networks than the one
that a machine is reached by: those of one name are on one wire in the whole lab, on which the computer has no address.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

REBOOT_STATUS = 133
HOST_KEY_TYPES = ("ed25519", "ecdsa", "rsa")
PREPARE, BOOT, SUPERVISE = "prepare", "boot", "supervise"
MAIN_INTERFACE = "eth0"


@dataclass(frozen=True)
class Computer:
    """What matters about the computer that holds the lab."""

    cgroups: str  # v1 or v2
    systemd: bool  # systemd is PID 1
    kvm: bool  # a machine may use /dev/kvm
    hierarchies: tuple[str, ...]  # cgroup directories in which systemd-nspawn works


@dataclass(frozen=True)
class Interface:
    """An interface of a machine beside eth0."""

    name: str
    address: str = ""  # with prefix length; without one, the machine's configuration does not mention the interface


@dataclass(frozen=True)
class Machine:
    lab_id: str
    name: str
    address: str
    prefix: int
    gateway: str
    mtu: int
    directory: str
    interfaces: tuple[Interface, ...] = ()

    @property
    def root(self) -> str:
        return f"{self.directory}/root"

    @property
    def unit(self) -> str:
        return f"kilonova-lab-{self.lab_id}-{self.name}.service"

    @property
    def cgroup(self) -> str:
        return f"kilonova-lab-{self.lab_id}-{self.name}"

    @property
    def namespace(self) -> str:
        """Name of the network namespace, and of the container."""
        return f"kl{self.lab_id}-{self.name}"

    @property
    def bridge(self) -> str:
        return bridge_name(self.lab_id)

    def link(self, interface: str = MAIN_INTERFACE) -> str:
        """Outer end of an interface's veth pair; at most 15 characters, as the kernel wants."""
        return f"{bridge_name(self.lab_id, interface)}-{self.address.rsplit('.', 1)[1]}"

    def mac(self, interface: str = MAIN_INTERFACE) -> str:
        """The same at every boot, so that neither leases nor neighbour tables go stale."""
        name = self.name if interface == MAIN_INTERFACE else f"{self.name}/{interface}"
        digest = hashlib.sha256(f"{self.lab_id}/{name}".encode()).hexdigest()
        return ":".join(["02", *(digest[i : i + 2] for i in range(0, 10, 2))])


def machine_from_record(record: Mapping[str, Any]) -> Machine:
    """The machine that was made, from its machine.json. TypeError where that lacks something."""
    interfaces = tuple(Interface(**entry) for entry in record.get("interfaces", ()))
    return Machine(**{**record, "interfaces": interfaces})


def bridge_name(lab_id: str, interface: str = MAIN_INTERFACE) -> str:
    """The bridge that machines' interfaces of one name are joined to."""
    return f"kl{lab_id}" + ("" if interface == MAIN_INTERFACE else interface.removeprefix("eth"))


def table_name(lab_id: str) -> str:
    return f"kilonova_lab_{lab_id}"


def nspawn_environment(computer: Computer) -> dict[str, str]:
    # The machine configures its own sysctl values (OVN's metadata agent among others), so /proc/sys is writable.
    environment = {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1"}
    if computer.cgroups == "v1":
        environment["SYSTEMD_NSPAWN_UNIFIED_HIERARCHY"] = "0"
    return environment


def nspawn_command(machine: Machine, computer: Computer) -> list[str]:
    command = [
        # systemd-nspawn joins the namespace before it starts, instead of with --network-namespace-path: that one would
        # leave the computer's own /sys in the machine, with the computer's interfaces in it.
        "nsenter",
        f"--net=/run/netns/{machine.namespace}",
        "systemd-nspawn",
        "--quiet",
        "--boot",
        f"--directory={machine.root}",
        f"--machine={machine.namespace}",
        f"--hostname={machine.name}",
        "--settings=no",
        "--register=no",
        "--keep-unit",
        "--capability=all",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--console=read-only",
    ]
    if computer.cgroups == "v1":
        command += [
            "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
            "systemd.unified_cgroup_hierarchy=0",
            "systemd.legacy_systemd_cgroup_controller=1",
        ]
    return command


def prepare_script(machine: Machine) -> str:
    """Network namespace and veth pairs for one boot, and the wires of the interfaces beside eth0."""
    ns, mtu = shlex.quote(machine.namespace), machine.mtu
    lines = [
        "#!/bin/sh",
        f"# Written by Kilonova's lab_machine module. The network of {machine.name}, made anew for each boot.",
        "set -eu",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        f"ip netns delete {ns} 2>/dev/null || :",
        f"ip netns add {ns}",
    ]
    for name in (MAIN_INTERFACE, *(interface.name for interface in machine.interfaces)):
        link, bridge = machine.link(name), bridge_name(machine.lab_id, name)
        if name != MAIN_INTERFACE:
            lines += [
                f"ip link add {bridge} mtu {mtu} type bridge 2>/dev/null || :  # or another machine's boot made it",
                # The computer would answer there for all addresses that it has, which may be others' on that wire.
                f"ip link set {bridge} arp off up",
            ]
        peer = f"name {name} address {machine.mac(name)} mtu {mtu} netns {ns}"
        lines += [
            f"ip link delete {link} 2>/dev/null || :",
            f"ip link add {link} mtu {mtu} type veth peer {peer}",
            f"ip link set {link} master {bridge} up",
        ]
    lines.append(f"nsenter --net=/run/netns/{ns} ip link set lo up")
    return "\n".join(lines) + "\n"


def boot_script(machine: Machine, computer: Computer) -> str:
    """Becomes systemd-nspawn."""
    lines = [
        "#!/bin/sh",
        f"# Written by Kilonova's lab_machine module. Becomes the systemd-nspawn process of {machine.name}.",
        "set -eu",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    ]
    if not computer.systemd:
        # Without a service manager that does it, each machine gets a cgroup of its own: systemd-nspawn would otherwise
        # put all machines into one /payload, where their systemds take each other's units for their own.
        if computer.cgroups == "v2":
            lines.append(
                "echo '+cpu +memory +io +pids' >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || :  # if there"
            )
        for hierarchy in computer.hierarchies:
            group = shlex.quote(f"{hierarchy}/{machine.cgroup}")
            lines += [
                f"[ ! -d {group} ] || find {group} -depth -type d -exec rmdir '{{}}' ';'",
                f"mkdir {group}",
                f"echo $$ >{group}/cgroup.procs",
            ]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in nspawn_environment(computer).items()]
    lines.append(f"exec {shlex.join(nspawn_command(machine, computer))}")
    return "\n".join(lines) + "\n"


def supervise_script(machine: Machine) -> str:
    """Boots, and boots again as long as the machine asks for a reboot. Used where systemd is not PID 1."""
    return f"""#!/bin/sh
# Written by Kilonova's lab_machine module. Boots {machine.name}, and again when it asks for a reboot ({REBOOT_STATUS}).
cd /
status={REBOOT_STATUS}
while [ "$status" -eq {REBOOT_STATUS} ]; do
    /bin/sh {shlex.quote(machine.directory)}/{PREPARE} || exit 1
    status=0
    /bin/sh {shlex.quote(machine.directory)}/{BOOT} || status=$?
done
exit "$status"
"""


def unit_file(machine: Machine) -> str:
    """The same loop as a systemd service, in the manner of systemd's own systemd-nspawn@.service."""
    return f"""# Written by Kilonova's lab_machine module.
[Unit]
Description=Kilonova lab machine {machine.name} (lab {machine.lab_id})
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStartPre=/bin/sh {machine.directory}/{PREPARE}
ExecStart=/bin/sh {machine.directory}/{BOOT}
RestartForceExitStatus={REBOOT_STATUS}
SuccessExitStatus={REBOOT_STATUS}
KillMode=mixed
TimeoutStopSec=120
Slice=machine.slice
Delegate=yes
TasksMax=infinity
StandardInput=null
StandardOutput=append:{machine.directory}/console.log
StandardError=append:{machine.directory}/console.log
"""


def machine_files(machine: Machine, computer: Computer, machine_id: str, authorized_key: str) -> dict[str, str]:
    """What a new machine's tree gets on top of the base image, by path relative to its root."""
    files = {
        "etc/hostname": f"{machine.name}\n",
        "etc/machine-id": f"{machine_id}\n",
        "etc/hosts": (
            "127.0.0.1 localhost\n"
            "::1 localhost ip6-localhost ip6-loopback\n"
            f"{machine.address} {' '.join(dict.fromkeys([machine.name, machine.name.split('.')[0]]))}\n"
        ),
        "etc/network/interfaces": (
            "auto lo\n"
            "iface lo inet loopback\n\n"
            "auto eth0\n"
            "iface eth0 inet static\n"
            f"    address {machine.address}/{machine.prefix}\n"
            f"    gateway {machine.gateway}\n"
            + "".join(
                f"\nauto {interface.name}\niface {interface.name} inet static\n    address {interface.address}\n"
                for interface in machine.interfaces
                if interface.address
            )
        ),
        "root/.ssh/authorized_keys": f"{authorized_key.strip()}\n",
    }
    # A node of its own: the computer's, bound in, would take over the owner and mode that the machine gives it.
    devices = ["c /dev/net/tun 0666 root root - 10:200"]
    if computer.kvm:
        devices.append("c /dev/kvm 0660 root kvm - 10:232")
    files["etc/tmpfiles.d/kilonova-lab.conf"] = "\n".join(devices) + "\n"
    return files


def ssh_options(lab_directory: PurePath | str, machine: str) -> dict[str, str]:
    """How ssh reaches a machine: with the lab's key, and only if it shows the host key made for it."""
    return {
        "User": "root",
        "IdentityFile": f"{lab_directory}/ssh/id_ed25519",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": f"{lab_directory}/machines/{machine}/known_hosts",
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
    }


def ssh_config(lab_directory: PurePath | str, machine: Machine) -> str:
    options = {"HostName": machine.address, **ssh_options(lab_directory, machine.name)}
    return f"Host {machine.name}\n" + "".join(f"    {key} {value}\n" for key, value in options.items())


def network_table(lab_id: str, subnet: str) -> str:
    """nftables input that replaces the lab's table whether it exists or not. Everything of the lab's is in it."""
    table, bridge = table_name(lab_id), bridge_name(lab_id)
    return f"""table ip {table}
delete table ip {table}
table ip {table} {{
    comment "Kilonova lab {lab_id}: {subnet}"
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname "{bridge}" accept
        oifname "{bridge}" ct state established,related accept
        oifname "{bridge}" drop
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {subnet} ip daddr != {subnet} masquerade
    }}
}}
"""
