# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Create, start, reboot, stop and remove a lab machine, and find what is left of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.kilonova.lab.boot import (
    BOOT,
    HOST_KEY_TYPES,
    PREPARE,
    SUPERVISE,
    Computer,
    Interface,
    Machine,
    boot_script,
    machine_files,
    prepare_script,
    ssh_config,
    ssh_options,
    supervise_script,
    unit_file,
)
from ansible.module_utils.kilonova.lab.computer import (
    NETNS,
    SIGNAL_POWEROFF,
    SIGNAL_REBOOT,
    LabError,
    cgroup_directories,
    lab_directory,
    machine_links,
    mounts_below,
    nspawn_traces,
    processes,
    read_json,
    remove_cgroup,
    run,
    send,
    start_time,
    unit_active,
    wait_for,
    write_file,
)
from ansible.module_utils.kilonova.lab.image import (
    Recipe,
    collect_packages,
    link_image,
    provide_packages,
    remove_directory,
)

UNITS = Path("/run/systemd/system")
KILL_TIMEOUT = 30.0
# In the directory of a machine: a link to its image, and what it changed.
IMAGE, UPPER = "image", "upper"
ARCHIVES = "var/cache/apt/archives"
RUNNING_STATES = ("running", "degraded", "maintenance")
CONSOLE_LINES = 20


def record_path(machine: Machine) -> Path:
    return Path(machine.directory) / "machine.json"


def archives(directory: Path) -> Path:
    """Return the apt cache of a machine, by a path whose files can be linked: not below the mount point."""
    upper = directory / UPPER
    return (upper if upper.is_dir() else directory / "root") / ARCHIVES


def console_tail(machine: Machine, lines: int = CONSOLE_LINES) -> str:
    path = Path(machine.directory) / "console.log"
    try:
        text = path.read_bytes()[-16384:].decode(errors="replace")
    except OSError:
        return f"{path} cannot be read"
    return f"The last lines of {path}:\n" + "\n".join(text.splitlines()[-lines:])


# ------------------------------------------------------------------ create
def has_tree(machine: Machine) -> bool:
    """Return whether the tree is complete: the record is written last."""
    return record_path(machine).exists() and Path(machine.root).is_dir()


def check_record(machine: Machine) -> None:
    """Raise LabError if the machine was created with other addresses or interfaces."""
    record = read_json(record_path(machine))
    if record and record.get("address") != machine.address:
        raise LabError(
            f"The lab machine {machine.name} was created with the address {record.get('address')}, the inventory now "
            f"says {machine.address} (lab_subnet, or the order of the hosts in the group lab). Restore the old address "
            "in the inventory, or remove the machine with playbooks/destroy.yml and create it again."
        )
    had = [Interface(**entry) for entry in record.get("interfaces", [])]
    if record and had != list(machine.interfaces):
        raise LabError(
            f"The lab machine {machine.name} was created with {describe_interfaces(had)} beside eth0, the inventory "
            f"now says {describe_interfaces(machine.interfaces)} (lab_interfaces). Restore that in the inventory, or "
            "remove the machine with playbooks/destroy.yml and create it again."
        )


def describe_interfaces(interfaces: Iterable[Interface]) -> str:
    return ", ".join(f"{one.name} {one.address}".strip() for one in interfaces) or "no interface"


def make_tree(machine: Machine, computer: Computer, recipe: Recipe, max_age_days: float) -> list[str]:
    """Create the files of a machine from the base image; return warnings."""
    directory = Path(machine.directory)
    remove_tree(machine)
    directory.mkdir(parents=True, exist_ok=True)
    warnings = link_image(recipe, max_age_days, directory / IMAGE)
    parents = reversed(Path(UPPER, ARCHIVES).parents[:-1])
    for below in (Path("root"), Path("work"), *parents, Path(UPPER, ARCHIVES)):
        (directory / below).mkdir()
        (directory / below).chmod(0o755)  # whatever the umask is
    provide_packages(archives(directory))
    try:
        mount_root(machine)
    except LabError as error:
        # The directory is on a file system that overlayfs cannot write to, such as another overlayfs.
        warnings.append(f"{machine.name} gets a copy of the image instead of a layer over it: {error}")
        run(["cp", "-a", "--no-clobber", f"{directory / IMAGE}/.", str(directory / UPPER)])
        Path(machine.root).rmdir()
        (directory / UPPER).rename(machine.root)
    key = (lab_directory(machine.lab_id) / "ssh/id_ed25519.pub").read_text()
    for name, text in machine_files(machine, computer, uuid.uuid4().hex, key).items():
        path = Path(machine.root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, text)
    Path(machine.root, "root/.ssh").chmod(0o700)
    Path(machine.root, "root/.ssh/authorized_keys").chmod(0o600)
    make_host_keys(machine, Path(machine.root, "etc/ssh"))
    write_file(directory / "ssh_config", ssh_config(lab_directory(machine.lab_id), machine), 0o600)
    write_file(record_path(machine), to_json(machine))
    return warnings


def mount_root(machine: Machine) -> None:
    """Mount what the machine changed over the image. A machine whose files were copied has no upper directory."""
    directory = Path(machine.directory)
    if not (directory / UPPER).is_dir() or os.path.ismount(machine.root):
        return
    lower = (directory / IMAGE).resolve()
    layers = f"lowerdir={lower},upperdir={directory / UPPER},workdir={directory / 'work'}"
    # With redirect_dir, directories of the image can be renamed.
    run(["mount", "-t", "overlay", "-o", f"{layers},redirect_dir=on", machine.namespace, machine.root])


def unmount(machine: Machine) -> None:
    """Unmount everything below the directory of a stopped machine."""
    if Path(machine.root).exists():
        # The lock file of systemd-nspawn, which it never removes.
        identity = Path(machine.root).stat()
        Path(f"/run/systemd/nspawn/locks/inode-{identity.st_dev}:{identity.st_ino}").unlink(missing_ok=True)
    for point in mounts_below(machine.directory, *map(str, nspawn_traces(machine))):
        run(["umount", "--lazy", point])


def to_json(machine: Machine) -> str:
    return json.dumps(asdict(machine), indent=2, sort_keys=True) + "\n"


def make_host_keys(machine: Machine, directory: Path) -> None:
    """Replace the host keys of the base image, which all machines would share."""
    for old in directory.glob("ssh_host_*"):
        old.unlink()
    known = ""
    for kind in HOST_KEY_TYPES:
        key = directory / f"ssh_host_{kind}_key"
        run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", machine.name, "-f", str(key)])
        known += f"{machine.address} {' '.join(key.with_suffix('.pub').read_text().split()[:2])}\n"
    write_file(Path(machine.directory) / "known_hosts", known, 0o600)


# ------------------------------------------------------------------ start and stop
def start(machine: Machine, computer: Computer, nameservers: str, timeout: float) -> str:
    """Boot a stopped machine; return the state that systemd reports."""
    directory = Path(machine.directory)
    mount_root(machine)
    if nameservers:
        resolv = Path(machine.root) / "etc/resolv.conf"
        if resolv.is_symlink():
            resolv.unlink()
        write_file(resolv, nameservers)
    write_file(directory / PREPARE, prepare_script(machine))
    write_file(directory / BOOT, boot_script(machine, computer))
    with open(directory / "console.log", "wb") as console:
        os.fchmod(console.fileno(), 0o600)
        if computer.systemd:
            write_file(UNITS / machine.unit, unit_file(machine))
            run(["systemctl", "daemon-reload"])
            run(["systemctl", "reset-failed", machine.unit], check=False)
            run(["systemctl", "start", machine.unit], timeout=timeout)
        else:
            write_file(directory / SUPERVISE, supervise_script(machine))
            # In a new session and without open files of this process, so that it survives Ansible and the terminal.
            subprocess.Popen(
                ["/bin/sh", str(directory / SUPERVISE)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                cwd="/",
            )
    return wait_until_up(machine, timeout)


def _answers_ssh(machine: Machine, timeout: float = 0.5) -> bool:
    try:
        with socket.create_connection((machine.address, 22), timeout=timeout) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def wait_until_up(machine: Machine, timeout: float) -> str:
    """Wait until systemd reports over ssh that the boot is complete."""
    deadline = time.monotonic() + timeout

    def answers_or_ended() -> bool:
        return _answers_ssh(machine) or not (processes(machine).any or unit_active(machine))

    if not wait_for(answers_or_ended, timeout) or not processes(machine).any:
        raise LabError(
            f"The lab machine {machine.name} ({machine.address}) did not come up: no ssh server within "
            f"{timeout:.0f} s. {console_tail(machine)}"
        )
    options = ssh_options(str(lab_directory(machine.lab_id)), machine.name)
    command = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]
    for key, value in options.items():
        command += ["-o", f"{key}={value}"]
    command += [machine.address, "systemctl", "is-system-running", "--wait"]
    state, detail = "", ""
    while time.monotonic() < deadline:
        try:
            done = run(command, check=False, timeout=max(1.0, deadline - time.monotonic()))
        except LabError as error:
            detail = str(error)
            break
        state, detail = done.stdout.strip(), done.stderr.strip()
        if state in RUNNING_STATES:
            return state
        time.sleep(0.3)
    raise LabError(
        f"The lab machine {machine.name} ({machine.address}) did not finish booting within {timeout:.0f} s "
        f"(systemctl is-system-running: {state or 'no answer'}) {detail}. {console_tail(machine)}"
    )


def reboot(machine: Machine, timeout: float) -> str:
    """Reboot the machine and wait until it is up."""
    leader = processes(machine).leader
    assert leader is not None
    before = (leader, start_time(leader))
    close_connections(machine)
    send((leader,), SIGNAL_REBOOT)

    def rebooted() -> bool:
        now = processes(machine)
        return not now.outside or (now.leader is not None and (now.leader, start_time(now.leader)) != before)

    if not wait_for(rebooted, timeout):
        raise LabError(
            f"The lab machine {machine.name} did not finish shutting down within {timeout:.0f} s. "
            f"{console_tail(machine)}"
        )
    return wait_until_up(machine, timeout)


def close_connections(machine: Machine) -> None:
    """Close shared ssh connections to the machine, in which the next task would hang."""
    for path in (lab_directory(machine.lab_id) / "connections").glob(f"{machine.address}-*"):
        run(["ssh", "-F", "none", "-O", "exit", "-o", f"ControlPath={path}", machine.address], check=False)
        path.unlink(missing_ok=True)


def shut_down(machine: Machine, timeout: float) -> bool:
    """Power the machine off; return False if it was killed (at once with timeout 0)."""
    close_connections(machine)
    now = processes(machine)
    orderly = False
    if now.leader and timeout > 0:
        send((now.leader,), SIGNAL_POWEROFF)
        orderly = wait_for(lambda: not processes(machine).inside, timeout, 0.2)
        if orderly:
            wait_for(lambda: not (processes(machine).any or unit_active(machine)), KILL_TIMEOUT)
    kill(machine)
    return orderly


def kill(machine: Machine) -> None:
    """Kill all processes of the machine."""
    if unit_active(machine):
        run(["systemctl", "kill", "--signal=SIGKILL", machine.unit], check=False)

    def gone() -> bool:
        now = processes(machine)
        # The supervisor first, which would boot the machine again. When PID 1 ends, the kernel ends all inside.
        send(now.outside, signal.SIGKILL)
        send((now.leader,) if now.leader else now.inside, signal.SIGKILL)
        return not now.any

    if not wait_for(gone, KILL_TIMEOUT):
        raise LabError(f"Processes of the lab machine {machine.name} do not end: {describe_processes(machine)}")
    if (UNITS / machine.unit).exists():
        run(["systemctl", "stop", machine.unit], check=False)
        run(["systemctl", "reset-failed", machine.unit], check=False)


def describe_processes(machine: Machine) -> str:
    now = processes(machine)
    return ", ".join(f"{pid} ({_name(pid)})" for pid in (*now.outside, *now.inside))


def _name(pid: int) -> str:
    try:
        return Path("/proc", str(pid), "comm").read_text().strip()
    except OSError:
        return "ended"


def clear_runtime(machine: Machine) -> None:
    """Remove namespaces, links, cgroups and mounts of a machine."""
    if (NETNS / machine.namespace).exists():
        run(["ip", "netns", "delete", machine.namespace])
    for link in machine_links(machine):
        run(["ip", "link", "delete", link], check=False)  # it may vanish with the namespace
    for directory in cgroup_directories(machine):
        remove_cgroup(directory)
    unmount(machine)
    for trace in nspawn_traces(machine):
        if trace.is_dir():
            trace.rmdir()
    if (UNITS / machine.unit).exists():
        (UNITS / machine.unit).unlink()
        run(["systemctl", "daemon-reload"])


# ------------------------------------------------------------------ leftovers
def leftovers(machine: Machine, with_files: bool = False) -> list[str]:
    """Return what exists of a machine on the computer."""
    now = processes(machine)
    found = [f"process {pid} ({_name(pid)})" for pid in (*now.outside, *now.inside)]
    if unit_active(machine):
        found.append(f"service {machine.unit}")
    if (NETNS / machine.namespace).exists():
        found.append(f"network namespace {machine.namespace}")
    found += [f"interface {link}" for link in machine_links(machine)]
    found += [f"cgroup {path}" for path in cgroup_directories(machine)]
    found += [f"mount {point}" for point in mounts_below(machine.directory, *map(str, nspawn_traces(machine)))]
    if with_files and Path(machine.directory).exists():
        found.append(f"directory {machine.directory}")
    return found


def remove_tree(machine: Machine) -> None:
    record_path(machine).unlink(missing_ok=True)
    unmount(machine)
    for name in ("root", UPPER, "work"):
        remove_directory(Path(machine.directory) / name)


def remove(machine: Machine) -> int:
    """Remove a machine and check that nothing is left; return the number of packages added to the cache."""
    shut_down(machine, 0)
    clear_runtime(machine)
    packages = collect_packages(archives(Path(machine.directory))) if has_tree(machine) else 0
    remove_tree(machine)
    shutil.rmtree(machine.directory, ignore_errors=True)

    def nothing_left() -> bool:
        return not leftovers(machine, with_files=True)

    if not wait_for(nothing_left, KILL_TIMEOUT):
        left = ", ".join(leftovers(machine, with_files=True))
        raise LabError(f"The lab machine {machine.name} was removed, but this is left: {left}")
    return packages


def machine_lock(machine: Machine) -> Path:
    return lab_directory(machine.lab_id) / "locks" / machine.name
