#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Collect what a deployment needs to know about a host, in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: preflight_facts
short_description: Collect what a deployment needs to know about a host
version_added: "0.1.0"
description:
  - Reads the operating system, processors, memory, disks, interfaces, routes, listening ports, virtualization and clock
    of a host in one call. It reads files below C(/proc), C(/sys), C(/etc) and C(/lib/modules) and, for addresses and
    routes, the output of C(ip -json); it changes nothing.
  - What cannot be found out is C(null) or empty and never an error, so that checks of the result can report it.
options:
  paths:
    description: Files and directories to look for; those that exist are listed in C(present).
    type: list
    elements: path
    default: []
  directories:
    description: Directories whose files are counted, in C(files_in).
    type: list
    elements: path
    default: []
  devices:
    description: Block devices and files of OSDs to look at. C(devices) says what each of them is and holds.
    type: list
    elements: path
    default: []
  peers:
    description: TCP sockets, as C(ADDRESS:PORT). Those that do not answer are listed in C(silent_peers).
    type: list
    elements: str
    default: []
  neighbours:
    description: >-
      IPv4 addresses on networks of the host. C(neighbours) has the hardware address that each is at, or nothing.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: The module only reads.
  diff_mode:
    support: none
    description: The module only reads.
notes:
  - >-
    Relied on: C(/proc/net/tcp) (state 0A is LISTEN) and C(/proc/net/udp) as described in proc_pid_net(5);
    KVM_GET_API_VERSION of Linux's Documentation/virt/kvm/api.rst, which answers 12 on every usable KVM.
author:
  - The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Collect facts
  preflight_facts:
    paths: [/var/lib/images/guest.qcow2]
  register: collected

- name: Print a fact
  ansible.builtin.debug:
    msg: "{{ preflight_facts.cpus }} processors, {{ preflight_facts.memory_mib }} MiB"
"""

RETURN = r"""
facts:
  description: What was found.
  returned: always
  type: dict
  sample:
    os: {id: debian, version: "13", name: Debian GNU/Linux 13 (trixie)}
    user: root
    hostname: node1
    architecture: x86_64
    cpus: 4
    memory_mib: 16001
    disk_free_mib: {/: 20000, /var: 20000}
    interfaces:
      eth0: {mac: "52:54:00:12:34:56", mtu: 1500, up: true, kind: "", master: br0, ports: [], addresses: []}
      br0: {mac: "52:54:00:12:34:56", mtu: 1500, up: true, kind: bridge, master: "", ports: [eth0], addresses:
        [10.0.0.2/24]}
    default_interface: br0
    default_gateway: 10.0.0.1
    listeners: [{protocol: tcp, address: 0.0.0.0, port: 22, pid: 147, process: sshd, unit: ssh.service}]
    kvm: true
    kvm_reason: ""
    apparmor: true
    ovs_kernel: true
    cgroups: v2
    clock: 1760000000.25
    pid1: systemd
    apt: true
    python3_apt: true
    python: 3.13.5
    ssh: {source: 192.0.2.1, port: 22}
    ssh_host_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGwX root@node1
    ovs_system_id: baa07756-c184-4977-8a41-afa702119483
    deployed: true
    record: {variables: {fixed_range: 192.168.1.0/24}, secrets: [nova_password]}
    plain: false
    hosts_file: "127.0.0.1 localhost\n"
    apt_settings: 'Acquire::http::Proxy "http://10.0.0.1:3142";'
    shells: {root: /bin/bash, nova: /bin/sh}
    present: [/var/lib/images/guest.qcow2]
    files_in: {/var/lib/glance/images: 3}
    guest_disks: {local: [1ca6bbcd-5f9d-4e1d-9d14-954c2e40cc7e], ceph: []}
    silent_peers: []
    ceph_data: [/var/lib/ceph/mon/ceph-node1]
    galera: {uuid: "", databases: [], alone: false}
    ceph_fsids: [5b3e6f52-5d2a-4f0e-9d1b-6f8c9f1c2d3e]
    devices:
      /dev/sdb: {kind: block, real: /dev/sdb, osd: "", size_mib: 953869, read_only: false, mounts: [], holds: [ext4]}
"""

import contextlib
import fcntl
import glob
import ipaddress
import json
import os
import platform
import pwd
import re
import socket
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.database.galera import galera_data
from ansible.module_utils.kilonova.network.ssh_connection import ssh_connection
from ansible.module_utils.kilonova.storage.data import ceph_data, device

KVM_GET_API_VERSION = 0xAE00
KVM_API_VERSION = 12
TCP_LISTEN = "0A"
# Created by the role base at the beginning of a deployment.
STATE_DIRECTORY = "/var/lib/kilonova"
PROXY = "/etc/haproxy/haproxy.cfg"
# Written by the role base.
RECORD = f"{STATE_DIRECTORY}/deployed.json"
APT_SETTINGS = "/etc/apt/apt.conf.d/80kilonova"


def read(path: str) -> str:
    """Return the stripped text of a file, or an empty string."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def run_json(command: list[str]) -> list[dict[str, Any]]:
    """Return the JSON list that a command prints, or an empty list."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=True, env={**os.environ, "LC_ALL": "C"})
        value = json.loads(done.stdout or b"[]")
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
    return value if isinstance(value, list) else []


def os_release(root: str = "/") -> dict[str, str]:
    """Return id, version and name from os-release."""
    values: dict[str, str] = {}
    for line in (read(f"{root}etc/os-release") or read(f"{root}usr/lib/os-release")).splitlines():
        key, found, value = line.partition("=")
        if found:
            values[key.strip()] = value.strip().strip("\"'")
    return {
        "id": values.get("ID", ""),
        "version": values.get("VERSION_ID", ""),
        "name": values.get("PRETTY_NAME", ""),
        "codename": values.get("VERSION_CODENAME", ""),
    }


def user_name(uid: int) -> str:
    """Return the name of a user; root for everything with root's rights."""
    if uid == 0:
        return "root"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def memory_mib(meminfo: str) -> int:
    """Return the memory in MiB from the text of /proc/meminfo."""
    match = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    return int(match.group(1)) // 1024 if match else 0


def disk_free_mib(path: str) -> int | None:
    """Return the MiB that root can still write below a path."""
    try:
        status = os.statvfs(path)
    except OSError:
        return None
    return status.f_bfree * status.f_frsize // (1024 * 1024)


def interfaces(addresses: list[dict[str, Any]], sysfs: str = "/sys/class/net") -> dict[str, dict[str, Any]]:
    """Return the interfaces in sysfs, with the addresses that `ip -json address` lists."""
    by_name: dict[str, list[str]] = {}
    for link in addresses:
        by_name[str(link.get("ifname"))] = [
            f"{info['local']}/{info['prefixlen']}"
            for info in link.get("addr_info", [])
            if info.get("local") and info.get("scope") != "link"
        ]
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(glob.glob(f"{sysfs}/*")):
        name = os.path.basename(path)
        if not os.path.isdir(path):  # bonding_masters is a file
            continue
        kind = ""
        if os.path.isdir(f"{path}/bridge"):
            kind = "bridge"
        elif os.path.isdir(f"{path}/bonding"):
            kind = "bond"
        elif os.path.isdir(f"{path}/wireless") or os.path.isdir(f"{path}/phy80211"):
            kind = "wireless"
        elif read(f"{path}/type") == "772":
            kind = "loopback"
        master = os.path.basename(os.readlink(f"{path}/master")) if os.path.islink(f"{path}/master") else ""
        found[name] = {
            "mac": read(f"{path}/address"),
            "mtu": int(read(f"{path}/mtu") or 0),
            "up": bool(int(read(f"{path}/flags") or "0", 16) & 1),
            "kind": kind,
            "master": master,
            "ports": sorted(os.path.basename(port) for port in glob.glob(f"{path}/brif/*")),
            "addresses": by_name.get(name, []),
        }
    return found


def default_route(routes: list[dict[str, Any]]) -> tuple[str, str]:
    """Return interface and gateway of the IPv4 default route with the lowest metric."""
    defaults = [route for route in routes if route.get("dst") == "default"]
    if not defaults:
        return "", ""
    best = min(defaults, key=lambda route: int(route.get("metric", 0)))
    return str(best.get("dev", "")), str(best.get("gateway", ""))


def socket_address(text: str) -> tuple[str, int]:
    """Parse a /proc/net/{tcp,udp}{,6} entry such as 0100007F:1F90 (32-bit words in host order)."""
    address, _, port = text.partition(":")
    words = bytes.fromhex(address)
    data = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
    return str(ipaddress.ip_address(data)), int(port, 16)


def unit_of(cgroup: str) -> str:
    """Return the systemd unit of a process from the text of its /proc/PID/cgroup."""
    for line in cgroup.splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3 and (fields[1] in ("", "name=systemd")):
            for part in reversed(fields[2].split("/")):
                if re.search(r"\.(service|socket|scope)$", part):
                    return part
    return ""


def socket_owners(wanted: set[str], proc: str = "/proc") -> dict[str, int]:
    """Return the process that holds each socket inode; systemd only where no other process does."""
    owners: dict[str, int] = {}
    for entry in os.listdir(proc):
        if not entry.isdigit():
            continue
        try:
            descriptors = os.listdir(f"{proc}/{entry}/fd")
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                target = os.readlink(f"{proc}/{entry}/fd/{descriptor}")
            except OSError:
                continue
            if target.startswith("socket:["):
                inode = target[8:-1]
                if inode in wanted and owners.get(inode, 1) == 1:
                    owners[inode] = int(entry)
    return owners


def listeners(proc: str = "/proc") -> list[dict[str, Any]]:
    """Return listening TCP and bound UDP ports with their process and systemd unit."""
    found: list[tuple[str, str, int, str]] = []
    for name in ("tcp", "tcp6", "udp", "udp6"):
        for line in read(f"{proc}/net/{name}").splitlines()[1:]:
            fields = line.split()
            protocol = name[:3]
            if protocol == "tcp" and fields[3] != TCP_LISTEN:
                continue
            # A UDP socket with a peer is a client.
            if protocol == "udp" and not fields[2].endswith(":0000"):
                continue
            address, port = socket_address(fields[1])
            found.append((protocol, address, port, fields[9]))
    owners = socket_owners({inode for _, _, _, inode in found}, proc)
    result = []
    for protocol, address, port, inode in sorted(found):
        pid = owners.get(inode)
        result.append(
            {
                "protocol": protocol,
                "address": address,
                "port": port,
                "pid": pid,
                "process": read(f"{proc}/{pid}/comm") if pid else "",
                "unit": unit_of(read(f"{proc}/{pid}/cgroup")) if pid else "",
            }
        )
    return result


def kvm(device: str = "/dev/kvm") -> tuple[bool, str]:
    """Return whether KVM answers, and why not."""
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return False, f"{device}: {error.strerror}"
    try:
        version = fcntl.ioctl(descriptor, KVM_GET_API_VERSION, 0)
    except OSError as error:
        return False, f"{device} does not answer KVM_GET_API_VERSION: {error.strerror}"
    finally:
        os.close(descriptor)
    if version != KVM_API_VERSION:
        return False, f"{device} has API version {version}, not {KVM_API_VERSION}"
    return True, ""


def kernel_module_available(name: str, release: str, root: str = "/") -> bool:
    """Return whether a kernel module is loaded, built in, or can be loaded."""
    if os.path.isdir(f"{root}sys/module/{name}"):
        return True
    pattern = re.compile(rf"(^|/){re.escape(name).replace('_', '[_-]')}\.ko(\.\w+)?(:|$)", re.MULTILINE)
    for directory in (f"{root}lib/modules/{release}", f"{root}usr/lib/modules/{release}"):
        for file in ("modules.dep", "modules.builtin"):
            if pattern.search(read(f"{directory}/{file}")):
                return True
    return False


def python3_apt() -> bool:
    """Return whether Ansible's apt module finds its Python bindings."""
    return any(os.path.isdir(f"{path}/apt") for path in ("/usr/lib/python3/dist-packages",))


def record(text: str) -> dict[str, Any]:
    """Parse what a deployment recorded of its variables and secrets; empty where there is no record."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def serves_plain(text: str) -> bool:
    """Return whether the configuration of HAProxy that Kilonova wrote serves other hosts without TLS."""
    binds = re.findall(r"^\s+bind (?!127\.)\d.*$", text, re.MULTILINE) if "Managed by Kilonova" in text else []
    return any(" ssl " not in f"{bind} " for bind in binds)


def files_in(path: str) -> int:
    """Return how many files are in a directory, 0 where there is none."""
    try:
        return sum(entry.is_file() for entry in os.scandir(path))
    except OSError:
        return 0


def guest_disks(root: str = "/") -> dict[str, list[str]]:
    """Return the guests of Nova whose disk is a file of this host, and those whose disk is in Ceph."""
    local = [path.split("/")[-2] for path in glob.glob(f"{root}var/lib/nova/instances/*/disk") if os.path.isfile(path)]
    ceph = []
    for path in glob.glob(f"{root}etc/libvirt/qemu/*.xml"):
        definition = read(path)
        if found := re.search(r"<source protocol='rbd' name='[^'/]+/([0-9a-f-]{36})_disk'", definition):
            ceph.append(found.group(1))
    return {"local": sorted(local), "ceph": sorted(ceph)}


def answers(peer: str, timeout: float = 3) -> bool:
    """Return whether a connection to ADDRESS:PORT is accepted."""
    address, _, port = peer.rpartition(":")
    try:
        socket.create_connection((address.strip("[]"), int(port)), timeout=timeout).close()
    except (OSError, ValueError):
        return False
    return True


def neighbour(address: str, timeout: float = 2) -> str:
    """Return the hardware address of whoever has an address on a network of this host, or an empty string."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        # A packet that nobody expects makes the kernel ask for the address.
        asked.sendto(b"", (address, 9))
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            entries = run_json(["ip", "-json", "neighbour", "show", "to", address])
            states = {state for entry in entries for state in entry.get("state", [])}
            if states & {"REACHABLE", "STALE", "DELAY", "PROBE", "PERMANENT"} or states == {"FAILED"}:
                return next((str(entry["lladdr"]) for entry in entries if entry.get("lladdr")), "")
            time.sleep(0.05)
    return ""


def collect(
    paths: Sequence[str] = (),
    directories: Sequence[str] = (),
    devices: Sequence[str] = (),
    peers: Sequence[str] = (),
    neighbours: Sequence[str] = (),
) -> dict[str, Any]:
    """Return all facts."""
    interface, gateway = default_route(run_json(["ip", "-json", "-4", "route", "show", "default"]))
    usable, reason = kvm()
    facts: dict[str, Any] = {
        "os": os_release(),
        "user": user_name(os.geteuid()),
        "hostname": platform.node(),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_mib": memory_mib(read("/proc/meminfo")),
        "disk_free_mib": {path: disk_free_mib(path) for path in ("/", "/var")},
        "interfaces": interfaces(run_json(["ip", "-json", "address", "show"])),
        "default_interface": interface,
        "default_gateway": gateway,
        "listeners": [],
        "kvm": usable,
        "kvm_reason": reason,
        "apparmor": read("/sys/module/apparmor/parameters/enabled").strip() == "Y",
        "ovs_kernel": kernel_module_available("openvswitch", platform.release()),
        "cgroups": "v2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "v1",
        "pid1": read("/proc/1/comm"),
        "apt": os.path.exists("/usr/bin/apt-get") and os.path.exists("/usr/bin/dpkg"),
        "python3_apt": python3_apt(),
        "python": platform.python_version(),
        "ssh": ssh_connection(os.getpid()),
        "ssh_host_key": read("/etc/ssh/ssh_host_ed25519_key.pub"),
        "ovs_system_id": read("/etc/openvswitch/system-id.conf"),
        "deployed": os.path.isdir(STATE_DIRECTORY),
        "record": record(read(RECORD)),
        "plain": serves_plain(read(PROXY)),
        "hosts_file": read("/etc/hosts"),
        "apt_settings": read(APT_SETTINGS),
        "shells": {user.pw_name: user.pw_shell for user in pwd.getpwall()},
        "present": [path for path in paths if os.path.exists(path)],
        "files_in": {path: files_in(path) for path in directories},
        "guest_disks": guest_disks(),
        "silent_peers": [peer for peer in peers if not answers(peer)],
        "neighbours": {address: neighbour(address) for address in neighbours},
        "ceph_data": ceph_data(devices),
        "galera": galera_data(),
        "ceph_fsids": sorted({read(path) for path in glob.glob("/var/lib/ceph/osd/*/ceph_fsid")}),
        "devices": {path: device(path) for path in devices},
    }
    with contextlib.suppress(OSError):
        facts["listeners"] = listeners()
    # Last, so that the time that the rest takes does not look like skew.
    facts["clock"] = time.time()
    return facts


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "default": []},
            "directories": {"type": "list", "elements": "path", "default": []},
            "devices": {"type": "list", "elements": "path", "default": []},
            "peers": {"type": "list", "elements": "str", "default": []},
            "neighbours": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    facts = collect(*(params[name] for name in ("paths", "directories", "devices", "peers", "neighbours")))
    module.exit_json(changed=False, facts=facts)


if __name__ == "__main__":
    main()
