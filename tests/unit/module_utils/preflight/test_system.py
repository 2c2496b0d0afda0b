# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Messages about system."""

from __future__ import annotations

import pytest
from ansible.module_utils.kilonova.preflight import system

from tests.unit.module_utils.preflight.sample import host


def test_tasks_run_as_root() -> None:
    assert system.check_user(host()) == []
    assert system.check_user(host(user="debian")) == [
        "ansible_user = 'debian': tasks run as this user on the host, and must run as root. Set ansible_become to true "
        "for this host, or log in as root."
    ]


def test_debian_13_is_supported() -> None:
    assert system.check_system(host()) == []
    assert system.check_system(host(os={"id": "debian", "version": "13.2", "name": "Debian"})) == []


@pytest.mark.parametrize(
    ("identity", "version", "name"),
    [
        ("debian", "12", "Debian GNU/Linux 12 (bookworm)"),
        ("ubuntu", "24.04", "Ubuntu 24.04 LTS"),
        ("debian", "", "Debian sid"),
    ],
)
def test_unsupported_release(identity: str, version: str, name: str) -> None:
    assert system.check_system(host(os={"id": identity, "version": version, "name": name})) == [
        f"The operating system is {name}: only Debian 13 (trixie) is supported. Install Debian 13 on this host."
    ]


def test_no_systemd() -> None:
    assert system.check_system(host(pid1="init")) == [
        "PID 1 is init: services run under systemd. Install the package systemd-sysv and reboot the host."
    ]


def test_no_apt() -> None:
    assert system.check_system(host(apt=False)) == [
        "apt-get and dpkg are missing: all packages are installed with them. Install the package apt."
    ]


def test_too_little_memory() -> None:
    assert system.check_memory(host(), 8000) == []
    assert system.check_memory(host(memory_mib=2000), 4608) == [
        "The host has 2000 MiB of memory: its services need 4608 MiB (preflight_minimum_memory_mib = 4608). Give it "
        "more memory, or set preflight_minimum_memory_mib to 2000 or less to try with less."
    ]


def test_too_little_disk() -> None:
    assert system.check_disk(host(), 6144, 512) == []
    assert system.check_disk(host(disk_free_mib={"/": 9000, "/var": 1000}), 6144, 512) == [
        "/var has 1000 MiB free: packages, databases and images need 6144 MiB (preflight_minimum_disk_mib = 6144). "
        "Free some space there, or set preflight_minimum_disk_mib to 1000 or less to try with less."
    ]


def test_one_file_system_is_one_problem() -> None:
    assert len(system.check_disk(host(disk_free_mib={"/": 1000, "/var": 1000}), 6144, 512)) == 1


def test_a_deployed_host_needs_less_disk() -> None:
    full = host(deployed=True, disk_free_mib={"/": 1000, "/var": 1000})
    assert system.check_disk(full, 6144, 512) == []
    assert "preflight_minimum_disk_deployed_mib = 2048" in system.check_disk(full, 6144, 2048)[0]


def test_clock_far_off() -> None:
    assert system.check_clock(host(clock=1000.5), 1000.0, 1001.0, 10) == []
    assert system.check_clock(host(clock=995.0), 1000.0, 1001.0, 10) == []
    end = (
        "that of the computer running Ansible: tokens and certificates need times within 10 s "
        "(preflight_maximum_clock_skew = 10). Set the clock (timedatectl set-time, or chronyc makestep), on whichever "
        "of the two is wrong."
    )
    assert system.check_clock(host(clock=1121.0), 1000.0, 1001.0, 10) == [
        f"The clock of this host is 120 s ahead of {end}"
    ]
    assert system.check_clock(host(clock=900.0), 1000.0, 1001.0, 10) == [
        f"The clock of this host is 100 s behind {end}"
    ]


def test_computes_need_an_ssh_host_key() -> None:
    bare = host(ssh_host_key="")
    assert system.check_ssh_host_key(bare, ["controller"]) == []
    assert system.check_ssh_host_key(host(ssh_host_key="ssh-ed25519 AAAA root@x"), ["compute"]) == []
    assert system.check_ssh_host_key(bare, ["compute"]) == [
        "/etc/ssh/ssh_host_ed25519_key.pub is missing: computes identify each other by it when they migrate guests. "
        "Run ssh-keygen -A on this host."
    ]


def test_no_kvm_is_a_note() -> None:
    (text,) = system.notes(host(kvm=False, kvm_reason="/dev/kvm: No such file or directory"), ["compute"])
    assert text == (
        "KVM is not usable here (/dev/kvm: No such file or directory): guests are emulated by QEMU, which is many "
        "times slower. Enable virtualization in the firmware, or nested virtualization on the hypervisor below, to "
        "have KVM."
    )
    assert system.notes(host(kvm=False), ["controller"]) == []


def test_no_openvswitch_module_is_a_note() -> None:
    assert system.notes(host(ovs_kernel=False), ["compute"]) == [
        "The kernel has no openvswitch module: Open vSwitch forwards in user space, which is slower."
    ]


def test_kvm_where_there_is_none() -> None:
    bare = host(kvm=False, kvm_reason="/dev/kvm: No such file or directory")
    assert system.check_kvm(bare, "kvm", ["compute"]) == [
        "libvirt_virt_type = 'kvm': KVM is not usable on this host (/dev/kvm: No such file or directory). Enable "
        "virtualization in the firmware or the hypervisor below, or remove the line to emulate guests."
    ]
    assert system.check_kvm(bare, "qemu", ["compute"]) == []
    assert system.check_kvm(bare, "kvm", ["controller"]) == []
    assert system.check_kvm(host(), "kvm", ["compute"]) == []
