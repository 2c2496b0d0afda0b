# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What is written for a lab machine's boot, for every kind of computer."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from ansible.module_utils.kilonova.lab import boot, computer

MACHINE = boot.Machine(
    "1a2b3c4d", "nova1", "10.208.7.10", 24, "10.208.7.1", 1400, "/var/lib/kilonova/lab/1a2b3c4d/machines/nova1"
)
WIRED = replace(MACHINE, interfaces=(boot.Interface("eth1"), boot.Interface("eth2", "198.18.1.10/24")))
V1 = boot.Computer("v1", False, False, ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"))
V2 = boot.Computer("v2", False, False, ("/sys/fs/cgroup",))
V2_SYSTEMD = boot.Computer("v2", True, True, ("/sys/fs/cgroup",))
LEGACY_WORDS = {
    "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
    "systemd.unified_cgroup_hierarchy=0",
    "systemd.legacy_systemd_cgroup_controller=1",
}


def test_command_on_cgroup_v1_asks_for_the_legacy_hierarchy():
    assert set(boot.nspawn_command(MACHINE, V1)) >= LEGACY_WORDS
    assert boot.nspawn_environment(V1)["SYSTEMD_NSPAWN_UNIFIED_HIERARCHY"] == "0"


@pytest.mark.parametrize("computer", [V2, V2_SYSTEMD])
def test_command_on_cgroup_v2_does_not(computer):
    assert not set(boot.nspawn_command(MACHINE, computer)) & LEGACY_WORDS
    assert "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY" not in boot.nspawn_environment(computer)


@pytest.mark.parametrize("computer", [V1, V2, V2_SYSTEMD])
def test_command_joins_the_namespace_first_and_leaves_reboots_to_the_supervisor(computer):
    command = boot.nspawn_command(MACHINE, computer)
    assert command[:3] == ["nsenter", "--net=/run/netns/kl1a2b3c4d-nova1", "systemd-nspawn"]
    assert "--keep-unit" in command
    assert f"--directory={MACHINE.root}" in command
    assert not [word for word in command if word.startswith("--network-namespace-path")]


def test_machines_of_a_lab_share_a_directory():
    path = "/var/lib/glance/images"
    one, other = (
        replace(MACHINE, name=name, directory=f"/lab/1/machines/{name}", shared_directories=(path,)) for name in "ab"
    )
    bind = "--bind=/lab/1/shared/var/lib/glance/images:/var/lib/glance/images"
    assert bind in boot.nspawn_command(one, V2)
    assert bind in boot.nspawn_command(other, V2)
    assert "mkdir -p /lab/1/shared/var/lib/glance/images\n" in boot.prepare_script(one)
    assert boot.machine_from_record(json.loads(json.dumps(asdict(one)))) == one


def test_names_fit_the_kernel_limit():
    widest = boot.Machine("ffffffff", "x", "10.223.255.254", 24, "", 1500, "/x")
    assert widest.link() == "klffffffff-254"
    assert widest.link("eth9") == "klffffffff9-254"
    assert boot.bridge_name("ffffffff", "eth9") == "klffffffff9"
    assert len(widest.link("eth9")) <= 15


def test_mac_is_stable_unicast_and_local_and_differs_between_labs():
    other = boot.Machine("00000000", "nova1", "10.208.7.10", 24, "", 1400, "/x")
    assert MACHINE.mac().startswith("02:")
    assert len(MACHINE.mac()) == 17
    assert len({MACHINE.mac(), other.mac(), MACHINE.mac("eth1"), MACHINE.mac("eth2")}) == 4


@pytest.mark.parametrize("computer", [V1, V2, V2_SYSTEMD])
def test_scripts_are_valid_shell(computer):
    scripts = [
        boot.prepare_script(WIRED),
        boot.boot_script(MACHINE, computer),
        boot.supervise_script(MACHINE),
    ]
    for script in scripts:
        done = subprocess.run(["/bin/sh", "-n"], input=script, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def test_each_machine_gets_its_own_cgroup_without_systemd():
    script = boot.boot_script(MACHINE, V1)
    for hierarchy in V1.hierarchies:
        assert f"echo $$ >{hierarchy}/kilonova-lab-1a2b3c4d-nova1/cgroup.procs" in script
    assert "subtree_control" in boot.boot_script(MACHINE, V2)
    assert "cgroup.procs" not in boot.boot_script(MACHINE, V2_SYSTEMD)


def test_unit_restarts_on_reboot_only():
    unit = boot.unit_file(MACHINE).splitlines()
    assert "RestartForceExitStatus=133" in unit
    assert "Delegate=yes" in unit
    assert not [line for line in unit if line.startswith("Restart=")]


@pytest.mark.parametrize(("statuses", "boots"), [([133, 133, 0], 3), ([0], 1), ([1], 1), ([137], 1)])
def test_supervisor_boots_again_only_after_a_reboot(tmp_path: Path, statuses, boots):
    machine = boot.Machine("1a2b3c4d", "nova1", "10.0.0.2", 24, "", 1500, str(tmp_path))
    (tmp_path / "statuses").write_text("".join(f"{status}\n" for status in statuses))
    (tmp_path / "prepare").write_text(f"echo prepared >>{tmp_path}/log\n")
    (tmp_path / "boot").write_text(
        f"read status <{tmp_path}/statuses\nsed -i 1d {tmp_path}/statuses\n"
        f'echo booted >>{tmp_path}/log\nexit "$status"\n'
    )
    (tmp_path / "supervise").write_text(boot.supervise_script(machine))
    done = subprocess.run(["/bin/sh", str(tmp_path / "supervise")], timeout=20, check=False)
    assert done.returncode == statuses[-1]
    assert (tmp_path / "log").read_text().split() == ["prepared", "booted"] * boots


def test_supervisor_gives_up_when_the_network_cannot_be_made(tmp_path: Path):
    machine = boot.Machine("1a2b3c4d", "nova1", "10.0.0.2", 24, "", 1500, str(tmp_path))
    (tmp_path / "prepare").write_text("exit 2\n")
    (tmp_path / "boot").write_text(f"touch {tmp_path}/booted\n")
    (tmp_path / "supervise").write_text(boot.supervise_script(machine))
    assert subprocess.run(["/bin/sh", str(tmp_path / "supervise")], timeout=20, check=False).returncode == 1
    assert not (tmp_path / "booted").exists()


def test_machine_files():
    files = boot.machine_files(MACHINE, V1, "0" * 32, "ssh-ed25519 AAAA lab\n")
    assert "    address 10.208.7.10/24\n    gateway 10.208.7.1\n" in files["etc/network/interfaces"]
    assert files["root/.ssh/authorized_keys"] == "ssh-ed25519 AAAA lab\n"
    assert "10.208.7.10 nova1\n" in files["etc/hosts"]
    assert "/dev/kvm" not in files["etc/tmpfiles.d/kilonova-lab.conf"]
    with_kvm = boot.machine_files(MACHINE, V2_SYSTEMD, "0" * 32, "k")
    assert "/dev/kvm 0660 root kvm" in with_kvm["etc/tmpfiles.d/kilonova-lab.conf"]


def test_interfaces_beside_eth0_are_configured_only_where_they_have_an_address():
    text = boot.machine_files(WIRED, V1, "0" * 32, "k")["etc/network/interfaces"]
    assert text.endswith("\nauto eth2\niface eth2 inet static\n    address 198.18.1.10/24\n")
    assert "eth1" not in text
    assert text.count("gateway") == 1


def test_machine_comes_back_from_its_record():
    assert boot.machine_from_record(json.loads(json.dumps(asdict(WIRED)))) == WIRED
    # Records of machines that were made before there were interfaces beside eth0.
    old = {name: value for name, value in asdict(MACHINE).items() if name != "interfaces"}
    assert boot.machine_from_record(old) == MACHINE
    with pytest.raises(TypeError):
        boot.machine_from_record({"name": "nova1"})


def test_ssh_checks_the_host_key_made_for_the_machine():
    text = boot.ssh_config("/var/lib/kilonova/lab/1a2b3c4d", MACHINE)
    assert "StrictHostKeyChecking yes" in text
    assert "UserKnownHostsFile /var/lib/kilonova/lab/1a2b3c4d/machines/nova1/known_hosts" in text


def test_table_is_the_labs_own_and_replaces_itself():
    text = boot.network_table("1a2b3c4d", "10.208.7.0/24")
    assert text.startswith("table ip kilonova_lab_1a2b3c4d\ndelete table ip kilonova_lab_1a2b3c4d\n")
    assert "ip saddr 10.208.7.0/24 ip daddr != 10.208.7.0/24 masquerade" in text


UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-e", "-c"]
NAMESPACES = "mount -t sysfs sysfs /sys && mount -t tmpfs tmpfs /run"


def can_unshare() -> bool:
    """Whether this user may make network namespaces, and put interfaces into them."""
    if computer.missing_packages():
        return False
    return subprocess.run([*UNSHARE, NAMESPACES], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="user and network namespaces and the lab's tools are needed")
def test_each_interface_is_on_a_wire_of_its_own(tmp_path: Path):
    """The script of two machines, run twice as for a reboot, on a computer that has the lab's first bridge."""
    other = replace(WIRED, name="nova2", address="10.208.7.11", interfaces=(boot.Interface("eth2"),))
    for machine in (WIRED, other):
        (tmp_path / machine.name).write_text(boot.prepare_script(machine))
    steps = [NAMESPACES, "ip link add kl1a2b3c4d mtu 1400 type bridge", f"cd {tmp_path}"]
    steps += ["sh nova1", "sh nova2", "sh nova1", "ip -json -details link >links"]
    steps += [f"ip -json -netns kl1a2b3c4d-{name} link >{name}.links" for name in ("nova1", "nova2")]
    done = subprocess.run([*UNSHARE, "\n".join(steps)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    links = {link["ifname"]: link for link in json.loads((tmp_path / "links").read_text())}
    assert {name: link["master"] for name, link in links.items() if "master" in link} == {
        "kl1a2b3c4d-10": "kl1a2b3c4d",
        "kl1a2b3c4d-11": "kl1a2b3c4d",
        "kl1a2b3c4d1-10": "kl1a2b3c4d1",
        "kl1a2b3c4d2-10": "kl1a2b3c4d2",
        "kl1a2b3c4d2-11": "kl1a2b3c4d2",
    }
    for wire in ("kl1a2b3c4d1", "kl1a2b3c4d2"):
        assert {"UP", "NOARP"} <= set(links[wire]["flags"])
        assert links[wire]["mtu"] == 1400
    inside = {link["ifname"]: link for link in json.loads((tmp_path / "nova1.links").read_text())}
    assert {name: link["address"] for name, link in inside.items() if name != "lo"} == {
        name: WIRED.mac(name) for name in ("eth0", "eth1", "eth2")
    }
    assert {link["mtu"] for name, link in inside.items() if name != "lo"} == {1400}
    assert [link["ifname"] for link in json.loads((tmp_path / "nova2.links").read_text())] == ["lo", "eth0", "eth2"]
