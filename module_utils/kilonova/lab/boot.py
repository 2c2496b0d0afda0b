# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Command line, scripts and files with which a lab machine boots.

Returns texts and argument lists and does not access the computer, so that tests cover all kinds of computers (cgroup v1
or v2, systemd as PID 1 or not).

A reboot from inside a machine ends systemd-nspawn with status 133 (``--keep-unit``). ``prepare`` and ``boot`` are then
run again by a systemd service (RestartForceExitStatus=133) where systemd is PID 1, or by the ``supervise`` script.
``prepare`` creates a new network namespace each time: in a used one, eth0 still has its address, and ifup fails.

A machine is reached over eth0, on the bridge of the lab. Interfaces eth1 to eth9 of the same name share a network in
which the computer has no address.
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
    """Properties of the computer that affect a boot."""

    cgroups: str  # v1 or v2
    systemd: bool  # systemd is PID 1
    kvm: bool  # a machine may use /dev/kvm
    hierarchies: tuple[str, ...]  # cgroup directories that systemd-nspawn uses


@dataclass(frozen=True)
class Interface:
    """An interface of a machine in addition to eth0."""

    name: str
    address: str = ""  # with prefix length; if empty, the interface is not configured


@dataclass(frozen=True)
class Machine:
    """A lab machine."""

    lab_id: str
    name: str
    address: str
    prefix: int
    gateway: str
    mtu: int
    directory: str
    interfaces: tuple[Interface, ...] = ()
    shared_directories: tuple[str, ...] = ()

    @property
    def root(self) -> str:
        return f"{self.directory}/root"

    def shared(self, path: str) -> str:
        """Return the directory on this computer that the machines of the lab see as ``path``."""
        return f"{PurePath(self.directory).parent.parent}/shared{path}"

    @property
    def unit(self) -> str:
        return f"kilonova-lab-{self.lab_id}-{self.name}.service"

    @property
    def cgroup(self) -> str:
        return f"kilonova-lab-{self.lab_id}-{self.name}"

    @property
    def namespace(self) -> str:
        """Return the name of the network namespace and the container."""
        return f"kl{self.lab_id}-{self.name}"

    @property
    def bridge(self) -> str:
        return bridge_name(self.lab_id)

    def link(self, interface: str = MAIN_INTERFACE) -> str:
        """Return the outer end of the veth pair of an interface, at most 15 characters."""
        return f"{bridge_name(self.lab_id, interface)}-{self.address.rsplit('.', 1)[1]}"

    def mac(self, interface: str = MAIN_INTERFACE) -> str:
        """Return a MAC address that is the same at every boot, so that neighbour tables stay valid."""
        name = self.name if interface == MAIN_INTERFACE else f"{self.name}/{interface}"
        digest = hashlib.sha256(f"{self.lab_id}/{name}".encode()).hexdigest()
        return ":".join(["02", *(digest[i : i + 2] for i in range(0, 10, 2))])


def machine_from_record(record: Mapping[str, Any]) -> Machine:
    """Return the machine in a machine.json. Raises TypeError if the record is incomplete."""
    interfaces = tuple(Interface(**entry) for entry in record.get("interfaces", ()))
    shared = tuple(record.get("shared_directories", ()))
    return Machine(**{**record, "interfaces": interfaces, "shared_directories": shared})


def bridge_name(lab_id: str, interface: str = MAIN_INTERFACE) -> str:
    """Return the bridge of the interfaces of this name."""
    return f"kl{lab_id}" + ("" if interface == MAIN_INTERFACE else interface.removeprefix("eth"))


def table_name(lab_id: str) -> str:
    return f"kilonova_lab_{lab_id}"


def nspawn_environment(computer: Computer) -> dict[str, str]:
    # /proc/sys is writable, because the machine sets sysctl values.
    environment = {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1"}
    if computer.cgroups == "v1":
        environment["SYSTEMD_NSPAWN_UNIFIED_HIERARCHY"] = "0"
    return environment


def nspawn_command(machine: Machine, computer: Computer) -> list[str]:
    command = [
        # Instead of --network-namespace-path, with which /sys in the machine shows the interfaces of the computer.
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
        *(f"--bind={machine.shared(path)}:{path}" for path in machine.shared_directories),
    ]
    if computer.cgroups == "v1":
        command += [
            "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
            "systemd.unified_cgroup_hierarchy=0",
            "systemd.legacy_systemd_cgroup_controller=1",
        ]
    return command


def prepare_script(machine: Machine) -> str:
    """Return the script that creates the network namespace, veth pairs and bridges for a boot."""
    ns, mtu = shlex.quote(machine.namespace), machine.mtu
    lines = [
        "#!/bin/sh",
        f"# Written by Kilonova (lab_machine). Creates the network of {machine.name} before each boot.",
        "set -eu",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        f"ip netns delete {ns} 2>/dev/null || :",
        f"ip netns add {ns}",
    ]
    for name in (MAIN_INTERFACE, *(interface.name for interface in machine.interfaces)):
        link, bridge = machine.link(name), bridge_name(machine.lab_id, name)
        if name != MAIN_INTERFACE:
            lines += [
                f"ip link add {bridge} mtu {mtu} type bridge 2>/dev/null || :  # another machine may have created it",
                # The computer would answer ARP for all of its addresses there.
                f"ip link set {bridge} arp off up",
            ]
        peer = f"name {name} address {machine.mac(name)} mtu {mtu} netns {ns}"
        lines += [
            f"ip link delete {link} 2>/dev/null || :",
            f"ip link add {link} mtu {mtu} type veth peer {peer}",
            f"ip link set {link} master {bridge} up",
        ]
    lines.append(f"nsenter --net=/run/netns/{ns} ip link set lo up")
    lines += [f"mkdir -p {shlex.quote(machine.shared(path))}" for path in machine.shared_directories]
    return "\n".join(lines) + "\n"


def boot_script(machine: Machine, computer: Computer) -> str:
    """Return the script that executes systemd-nspawn."""
    lines = [
        "#!/bin/sh",
        f"# Written by Kilonova (lab_machine). Executes systemd-nspawn for {machine.name}.",
        "set -eu",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    ]
    if not computer.systemd:
        # Otherwise systemd-nspawn puts all machines into one cgroup /payload, where their systemds conflict.
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
    """Return the script that boots the machine again after a reboot, for computers without systemd as PID 1."""
    return f"""#!/bin/sh
# Written by Kilonova (lab_machine). Boots {machine.name}, and again after a reboot ({REBOOT_STATUS}).
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
    """Return the service that does the same, modelled on systemd-nspawn@.service."""
    return f"""# Written by Kilonova (lab_machine).
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
    """Return {path: content} of the files that a new machine has in addition to the base image."""
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
    # Device nodes instead of bind mounts, through which the machine would change owner and mode on the computer.
    devices = ["c /dev/net/tun 0666 root root - 10:200"]
    if computer.kvm:
        devices.append("c /dev/kvm 0660 root kvm - 10:232")
    files["etc/tmpfiles.d/kilonova-lab.conf"] = "\n".join(devices) + "\n"
    return files


def ssh_options(lab_directory: PurePath | str, machine: str) -> dict[str, str]:
    """Return the ssh options for a machine: the key of the lab, and strict host key checking."""
    return {
        "User": "root",
        "IdentityFile": f"{lab_directory}/ssh/id_ed25519",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": f"{lab_directory}/machines/{machine}/known_hosts",
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
    }


def ssh_config(lab_directory: PurePath | str, machine: Machine) -> str:
    """Return the ssh_config of a machine."""
    options = {"HostName": machine.address, **ssh_options(lab_directory, machine.name)}
    return f"Host {machine.name}\n" + "".join(f"    {key} {value}\n" for key, value in options.items())


def network_table(lab_id: str, subnet: str) -> str:
    """Return nft input that creates or replaces the table of the lab."""
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
