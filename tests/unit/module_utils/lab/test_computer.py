# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Looking at the computer that holds the lab."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lab_machine
import pytest
from ansible.module_utils.kilonova.lab import computer, lifecycle
from ansible.module_utils.kilonova.lab.boot import Interface, Machine


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(computer, "STATE", tmp_path)
    directory = tmp_path / "0f0f0f0f/machines/nova1"
    directory.mkdir(parents=True)
    return Machine("0f0f0f0f", "nova1", "10.208.7.10", 24, "10.208.7.1", 1400, str(directory))


def made(machine: Machine) -> Machine:
    Path(machine.root).mkdir(exist_ok=True)
    lifecycle.record_path(machine).write_text(lifecycle.to_json(machine))
    return machine


def sleeper(*words: str) -> subprocess.Popen[bytes]:
    code = "import time; print('up', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_missing_tools_are_named_with_the_command_that_gets_them(tmp_path: Path):
    missing = computer.missing_packages(
        lambda tool: None if tool in ("nft", "mmdebstrap") else f"/usr/bin/{tool}", tmp_path
    )
    assert missing == {"nft": "nftables", "mmdebstrap": "mmdebstrap"}
    assert computer.missing_message(missing).endswith("Get it with: apt-get install mmdebstrap nftables")
    assert "debian-archive-keyring" in computer.missing_packages(str, tmp_path / "none").values()


def test_other_users_are_told_to_be_root():
    with pytest.raises(computer.LabError, match="only root may create.*sudo"):
        computer.require_root(1000)
    computer.require_root(0)


def test_failing_command_is_shown_with_its_words():
    with pytest.raises(computer.LabError, match="failed with status 3: no such thing"):
        computer.run(["sh", "-c", "echo no such thing >&2; exit 3"])
    with pytest.raises(computer.LabError, match="did not end within"):
        computer.run(["sleep", "5"], timeout=0.1)
    with pytest.raises(computer.LabError, match="is missing"):
        computer.run(["kilonova-no-such-command"])


def test_cgroup_version(tmp_path: Path):
    assert computer.cgroup_version(tmp_path) == "v1"
    (tmp_path / "cgroup.controllers").touch()
    assert computer.cgroup_version(tmp_path) == "v2"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the flags are x86's")
def test_kvm_needs_the_processor_not_only_the_device(tmp_path: Path):
    (tmp_path / "cpuinfo").write_text("flags : fpu hypervisor\n")
    (tmp_path / "kvm").touch()
    assert not computer.kvm_usable(tmp_path / "kvm", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("flags : fpu vmx\n")
    assert not computer.kvm_usable(tmp_path / "kvm", tmp_path / "cpuinfo")  # a file that is no KVM device


def test_mounts_below_are_found_deepest_first():
    text = (
        "1 2 8:1 / / rw - ext4 /dev/vda rw\n"
        "3 1 0:5 / /var/lib/kilonova/lab/1a/root rw - tmpfs t rw\n"
        "4 3 0:6 / /var/lib/kilonova/lab/1a/root/my\\040dir rw - tmpfs t rw\n"
        "5 1 0:7 / /var/lib/kilonova/lab/1a/rootless rw - tmpfs t rw\n"
    )
    found = computer.mounts_below("/var/lib/kilonova/lab/1a/root", mountinfo=text)
    assert found == ["/var/lib/kilonova/lab/1a/root/my dir", "/var/lib/kilonova/lab/1a/root"]


def test_written_file_has_its_mode_and_is_left_alone_when_right(tmp_path: Path):
    path = tmp_path / "key"
    assert computer.write_file(path, "a", 0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    assert not computer.write_file(path, "a", 0o600)
    assert computer.write_file(path, "b", 0o600)


def test_outside_processes_are_found_by_their_exact_arguments(machine: Machine):
    made(machine)
    supervisor = sleeper(f"{machine.directory}/supervise")
    nspawn = sleeper(f"--directory={machine.root}")
    neighbour = sleeper(f"--directory={machine.root}2", f"{machine.directory}/supervise2")
    try:
        now = computer.processes(machine)
        assert now.supervisors == (supervisor.pid,)
        assert now.nspawn == (nspawn.pid,)
        assert now.leader is None
        assert not now.whole(unit_active=True)
        assert lab_machine.state_of(machine) == "left behind"
        lifecycle.kill(machine)
        assert nspawn.wait(10) == supervisor.wait(10) == -9
        assert neighbour.poll() is None
        assert lab_machine.state_of(machine) == "stopped"
    finally:
        for process in (supervisor, nspawn, neighbour):
            process.kill()
            process.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot and PID namespaces need root")
def test_inside_processes_are_found_by_their_root_directory(machine: Machine):
    made(machine)
    code = f"import os, time; os.chroot({machine.root!r}); print('up', flush=True); time.sleep(60)"
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        now = computer.processes(machine)
        assert now.leader in now.inside
        assert now.leader != process.pid
        lifecycle.kill(machine)
        process.wait(10)
        assert not computer.processes(machine).any
    finally:
        process.kill()
        process.wait()


def test_states_without_processes(machine: Machine):
    assert lab_machine.state_of(machine) == "absent"
    Path(machine.root).mkdir()
    assert lab_machine.state_of(machine) == "incomplete"
    made(machine)
    assert lab_machine.state_of(machine) == "stopped"


def test_removal_takes_a_half_made_machine_and_shares_its_packages(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lifecycle, "collect_packages", lambda archives: 7)
    (Path(machine.root) / "etc").mkdir(parents=True)
    assert lifecycle.remove(machine) == 0
    assert not Path(machine.directory).exists()
    Path(machine.directory).mkdir()
    made(machine)
    assert lifecycle.remove(machine) == 7
    assert lifecycle.leftovers(machine, with_files=True) == []


def test_changed_address_is_refused(machine: Machine):
    made(machine)
    lifecycle.check_record(machine)
    other = Machine("0f0f0f0f", "nova1", "10.208.9.10", 24, "10.208.9.1", 1400, machine.directory)
    with pytest.raises(computer.LabError, match=r"address 10\.208\.7\.10.*now says 10\.208\.9\.10.*lab_subnet"):
        lifecycle.check_record(other)


def test_changed_interfaces_are_refused(machine: Machine):
    made(replace(machine, interfaces=(Interface("eth1"), Interface("eth2", "198.18.1.10/24"))))
    with pytest.raises(
        computer.LabError, match=r"created with eth1, eth2 198\.18\.1\.10/24 .* says no interface .*lab_inter"
    ):
        lifecycle.check_record(machine)


@pytest.mark.parametrize(
    ("interfaces", "message"),
    [
        (["eth0"], "'eth0': beside eth0"),
        (["ens3"], "'ens3': beside eth0"),
        (["eth10"], "'eth10': beside eth0"),
        (["eth1", "eth1"], "each once"),
        (["eth1 198.18.1.10"], "'198.18.1.10', which is not"),
        (["eth1 fd00::1/64"], "'fd00::1/64', which is not"),
        (["eth1 198.18.1.300/24"], "'198.18.1.300/24', which is not"),
    ],
)
def test_bad_interfaces_are_refused(interfaces: list[str], message: str):
    with pytest.raises(computer.LabError, match=message):
        lab_machine.check_interfaces([Interface(*text.split()) for text in interfaces])


@pytest.mark.parametrize("path", ["", "/", "srv", "/srv/../etc", "/srv/a:b", "/srv/a b"])
def test_bad_shared_directories_are_refused(path: str):
    with pytest.raises(computer.LabError, match="which is not an absolute path"):
        lab_machine.check_shared_directories([path])


def test_good_shared_directories_pass():
    lab_machine.check_shared_directories(["/srv", "/var/lib/glance/images"])


def test_good_interfaces_pass():
    lab_machine.check_interfaces([])
    lab_machine.check_interfaces([Interface("eth1"), Interface("eth9", "198.18.1.10/24")])


def test_links_are_found_whatever_the_inventory_says_now(machine: Machine, tmp_path: Path):
    for name in ("kl0f0f0f0f-10", "kl0f0f0f0f3-10", "kl0f0f0f0f3-11", "kl0f0f0f0f", "kl0f0f0f0f3"):
        (tmp_path / name).touch()
    assert computer.machine_links(machine, tmp_path) == ["kl0f0f0f0f-10", "kl0f0f0f0f3-10"]


@pytest.mark.parametrize("state", ["started", "stopped", "rebooted", "absent"])
@pytest.mark.parametrize("exists", [True, False])
def test_check_mode_predicts_and_touches_nothing(machine: Machine, state: str, exists: bool):
    if exists:
        made(machine)
    before = sorted(str(path) for path in Path(machine.directory).rglob("*"))
    outcome = lab_machine.apply(machine, {"state": state, "kvm": False}, True)
    assert outcome.changed is (state != "stopped")
    assert outcome.created is (state in ("started", "rebooted") and not exists)
    assert sorted(str(path) for path in Path(machine.directory).rglob("*")) == before


@pytest.mark.parametrize("name", ["Nova1", "-a", "a_b", "a" * 54, "a..b", ""])
def test_bad_host_names_are_refused(name: str):
    with pytest.raises(computer.LabError, match="cannot be a lab machine's host name"):
        lab_machine.check_name(name)


def test_good_host_names_pass():
    for name in ("nova1", "a", "n-1.example.org"):
        lab_machine.check_name(name)


def test_a_cgroup_is_removed_once_its_last_processes_have_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    inner = tmp_path / "group/payload/system.slice"
    inner.mkdir(parents=True)
    ending, rmdir = [1, 2, 3], os.rmdir

    def busy(path: str) -> None:
        if path == str(inner) and ending:
            ending.pop()
            raise OSError(errno.EBUSY, "Device or resource busy", path)
        rmdir(path)

    monkeypatch.setattr(os, "rmdir", busy)
    computer.remove_cgroup(tmp_path / "group")
    assert not (tmp_path / "group").exists()


def test_a_process_that_stays_in_a_cgroup_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "group").mkdir()
    (tmp_path / "group/cgroup.procs").write_text("4711\n")

    def busy(path: str) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", path)

    monkeypatch.setattr(os, "rmdir", busy)
    with pytest.raises(computer.LabError, match="processes 4711 stay in it"):
        computer.remove_cgroup(tmp_path / "group", timeout=0.2)


def test_a_cgroup_with_foreign_content_is_an_error_at_once(tmp_path: Path):
    (tmp_path / "group").mkdir()
    (tmp_path / "group/file").write_text("")
    with pytest.raises(OSError, match="not empty"):
        computer.remove_cgroup(tmp_path / "group")
