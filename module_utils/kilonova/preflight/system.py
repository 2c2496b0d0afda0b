# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the operating system, memory, disk, clock and virtualization of a host."""

from __future__ import annotations

from collections.abc import Iterable

from ansible.module_utils.kilonova.preflight.messages import Facts, message

SUPPORTED = {"debian": ("13",)}


def check_user(facts: Facts) -> list[str]:
    """Require root's rights, without which little can be found out."""
    user = facts["user"]
    if user == "root":
        return []
    why = "tasks run as this user on the host, and must run as root"
    return [message("ansible_user", user, why, "Set ansible_become to true for this host, or log in as root")]


def check_system(facts: Facts) -> list[str]:
    """Require a supported operating system with APT and systemd."""
    found = []
    release = facts["os"]
    if str(release["version"]).split(".")[0] not in SUPPORTED.get(release["id"], ()):
        name = release["name"] or f"{release['id']} {release['version']}".strip() or "unknown"
        found.append(
            f"The operating system is {name}: only Debian 13 (trixie) is supported. Install Debian 13 on this host."
        )
    elif not facts["apt"]:
        found.append("apt-get and dpkg are missing: all packages are installed with them. Install the package apt.")
    if facts["pid1"] != "systemd":
        found.append(
            f"PID 1 is {facts['pid1'] or 'unknown'}: services run under systemd. Install the package systemd-sysv and "
            "reboot the host."
        )
    return found


def check_memory(facts: Facts, minimum: int) -> list[str]:
    """Require enough memory for the groups of the host."""
    have = facts["memory_mib"]
    if have >= minimum:
        return []
    return [
        f"The host has {have} MiB of memory: its services need {minimum} MiB (preflight_minimum_memory_mib = "
        f"{minimum}). Give it more memory, "
        f"or set preflight_minimum_memory_mib to {have} or less to try with less."
    ]


def check_disk(facts: Facts, minimum: int, minimum_deployed: int) -> list[str]:
    """Require enough free disk; a host whose deployment has begun needs less."""
    name, wanted = "preflight_minimum_disk_mib", minimum
    if facts["deployed"]:
        name, wanted = "preflight_minimum_disk_deployed_mib", minimum_deployed
    found = []
    free = facts["disk_free_mib"]
    # Report one file system once.
    paths = ["/"] if free.get("/") == free.get("/var") else ["/", "/var"]
    for path in paths:
        have = free.get(path)
        if have is not None and have < wanted:
            found.append(
                f"{path} has {have} MiB free: packages, databases and images need {wanted} MiB ({name} = {wanted}). "
                "Free some space there, or set "
                f"{name} to {have} or less to try with less."
            )
    return found


def check_clock(facts: Facts, before: float, after: float, maximum: float) -> list[str]:
    """Compare the clock of the host with the time here before and after it was read."""
    clock = float(facts["clock"])
    skew = clock - after if clock > after else clock - before if clock < before else 0.0
    if abs(skew) <= maximum:
        return []
    way = "ahead of" if skew > 0 else "behind"
    return [
        f"The clock of this host is {abs(skew):.0f} s {way} that of the computer running Ansible: tokens and "
        "certificates need times within "
        f"{maximum:g} s (preflight_maximum_clock_skew = {maximum:g}). Set the clock (timedatectl set-time, or chronyc "
        "makestep), on whichever "
        "of the two is wrong."
    ]


def check_ssh_host_key(facts: Facts, groups: Iterable[str]) -> list[str]:
    """Require the host key that computes identify each other by."""
    if "compute" not in groups or facts["ssh_host_key"].startswith("ssh-ed25519 "):
        return []
    return [
        "/etc/ssh/ssh_host_ed25519_key.pub is missing: computes identify each other by it when they migrate guests. "
        "Run ssh-keygen -A on this host."
    ]


def notes(facts: Facts, groups: Iterable[str]) -> list[str]:
    """Return notes on what works, but slower or with fewer walls than it could."""
    found = []
    if "compute" in groups:
        if not facts["kvm"]:
            found.append(
                f"KVM is not usable here ({facts['kvm_reason']}): guests are emulated by QEMU, which is many times "
                "slower. Enable virtualization "
                "in the firmware, or nested virtualization on the hypervisor below, to have KVM."
            )
        if not facts["apparmor"]:
            found.append(
                "AppArmor is not enabled in the kernel: a guest that breaks out of QEMU is kept by its user and system "
                "call filter only. Boot with apparmor=1 security=apparmor to confine each guest to its own files."
            )
        if not facts["ovs_kernel"]:
            found.append("The kernel has no openvswitch module: Open vSwitch forwards in user space, which is slower.")
    return found


def check_kvm(facts: Facts, virt_type: object, groups: Iterable[str]) -> list[str]:
    """Report KVM where the host has none."""
    if "compute" not in groups or virt_type != "kvm" or facts["kvm"]:
        return []
    why = f"KVM is not usable on this host ({facts['kvm_reason']})"
    instead = "Enable virtualization in the firmware or the hypervisor below, or remove the line to emulate guests"
    return [message("libvirt_virt_type", virt_type, why, instead)]
