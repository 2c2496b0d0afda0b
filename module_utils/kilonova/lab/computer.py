# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Inspect and change the computer of the lab: commands, files, processes, mounts, links, cgroups."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.kilonova.lab.boot import SUPERVISE, Computer, Machine

STATE = Path("/var/lib/kilonova/lab")
CACHE = Path("/var/cache/kilonova/lab")
NETNS = Path("/run/netns")
CGROUPS = Path("/sys/fs/cgroup")
# Signals to PID 1 that start poweroff.target and reboot.target, see systemd(1).
SIGNAL_POWEROFF = signal.SIGRTMIN + 4
SIGNAL_REBOOT = signal.SIGRTMIN + 5
TOOLS = {
    "ip": "iproute2",
    "mount": "mount",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "nsenter": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "systemd-nspawn": "systemd-container",
}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
KVM_CREATE_VM = 0xAE01


class LabError(Exception):
    """An error whose text is for the user."""


def run(
    argv: list[str], *, check: bool = True, text: str | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "PATH": SEARCH_PATH}
    try:
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, env=environment, timeout=timeout, check=False, cwd="/"
        )
    except FileNotFoundError:
        package = TOOLS.get(argv[0])
        hint = f" Get it with: apt-get install {package}" if package else ""
        raise LabError(f"The command {argv[0]} is missing on this computer.{hint}") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(argv)} did not end within {timeout:.0f} s.") from None
    if check and done.returncode != 0:
        output = (done.stderr or done.stdout).strip()[-2000:]
        raise LabError(f"{' '.join(argv)} failed with status {done.returncode}: {output}")
    return done


def require_root(uid: int | None = None) -> None:
    if (os.geteuid() if uid is None else uid) != 0:
        raise LabError(
            "The lab is made of containers, network namespaces and mounts, which only root may create. "
            "Run the same command as root, for example with sudo."
        )


def missing_packages(which: Callable[[str], str | None] | None = None, keyring: Path = KEYRING) -> dict[str, str]:
    """Return {missing tool: Debian package}."""
    find = which or (lambda tool: shutil.which(tool, path=SEARCH_PATH))
    missing = {tool: package for tool, package in TOOLS.items() if not find(tool)}
    if not keyring.exists():
        missing[str(keyring)] = "debian-archive-keyring"
    return missing


def require_tools() -> None:
    missing = missing_packages()
    if missing:
        raise LabError(missing_message(missing))


def missing_message(missing: dict[str, str]) -> str:
    packages = " ".join(sorted(set(missing.values())))
    return f"The lab needs on this computer: {', '.join(sorted(missing))}. Get it with: apt-get install {packages}"


def kvm_usable(device: Path = Path("/dev/kvm"), cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether guests run on /dev/kvm.

    In a virtual machine the device may exist without hardware virtualisation: guests can be created, but do not boot.
    The flags of the processor tell.
    """
    try:
        flags = cpuinfo.read_text(errors="replace")
        if os.uname().machine == "x86_64" and not {"vmx", "svm"} & set(flags.split()):
            return False
        handle = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.close(fcntl.ioctl(handle, KVM_CREATE_VM, 0))
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def cgroup_version(mount: Path = CGROUPS) -> str:
    return "v2" if (mount / "cgroup.controllers").exists() else "v1"


def this_computer(use_kvm: bool = True) -> Computer:
    cgroups = cgroup_version()
    if cgroups == "v2":
        hierarchies = [CGROUPS]
    else:
        hierarchies = [path for path in (CGROUPS / "systemd", CGROUPS / "unified") if (path / "cgroup.procs").exists()]
        if CGROUPS / "systemd" not in hierarchies:
            raise LabError(
                "This computer has cgroup v1 without the hierarchy that systemd uses in the machines. Mount it with: "
                "mkdir -p /sys/fs/cgroup/systemd && mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd"
            )
    return Computer(
        cgroups=cgroups,
        systemd=Path("/run/systemd/system").is_dir(),
        kvm=use_kvm and kvm_usable(),
        hierarchies=tuple(str(path) for path in hierarchies),
    )


def lab_directory(lab_id: str) -> Path:
    return STATE / lab_id


def write_file(path: Path, text: str, mode: int = 0o644) -> bool:
    """Replace a file atomically; return whether it changed."""
    if path.is_file() and path.read_text() == text and path.stat().st_mode & 0o7777 == mode:
        return False
    partial = path.with_name(f".{path.name}.partial")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w") as stream:
        stream.write(text)
    os.chmod(partial, mode)
    partial.replace(path)
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock, which the kernel releases when the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


# ------------------------------------------------------------------ processes
@dataclass(frozen=True)
class Processes:
    """The processes of a machine, found by root directory or arguments, because recorded PIDs can be reused."""

    leader: int | None  # PID 1 of the machine, as PID on the computer
    inside: tuple[int, ...]
    nspawn: tuple[int, ...]
    supervisors: tuple[int, ...]

    @property
    def outside(self) -> tuple[int, ...]:
        return (*self.supervisors, *self.nspawn)

    @property
    def any(self) -> bool:
        return bool(self.inside or self.outside)

    def whole(self, unit_active: bool) -> bool:
        """Return whether the machine runs with a supervisor."""
        return bool(self.leader and self.nspawn and (self.supervisors or unit_active))


def _arguments(pid: str) -> list[str]:
    try:
        return Path("/proc", pid, "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _numbers(pid: str) -> list[int]:
    """Return the PIDs of a process in its PID namespaces, outermost first."""
    try:
        for line in Path("/proc", pid, "status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return [int(word) for word in line.split()[1:]]
    except OSError:
        pass
    return []


def processes(machine: Machine) -> Processes:
    try:
        root = os.stat(machine.root)
        identity = (root.st_dev, root.st_ino)
    except FileNotFoundError:
        identity = (-1, -1)
    supervise, directory = f"{machine.directory}/{SUPERVISE}", f"--directory={machine.root}"
    inside: list[int] = []
    nspawn: list[int] = []
    supervisors: list[int] = []
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        try:
            found = os.stat(f"/proc/{pid}/root")
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == identity:
            inside.append(int(pid))
            continue
        arguments = _arguments(pid)
        if directory in arguments:
            nspawn.append(int(pid))
        elif supervise in arguments:
            supervisors.append(int(pid))
    leaders = [numbers[0] for numbers in map(_numbers, map(str, inside)) if len(numbers) > 1 and numbers[-1] == 1]
    return Processes(min(leaders, default=None), tuple(inside), tuple(nspawn), tuple(supervisors))


def start_time(pid: int) -> str:
    """Return the start time of a process, which tells apart processes with a reused PID."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def send(pids: tuple[int, ...], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def wait_for(condition: Callable[[], bool], timeout: float, interval: float = 0.1) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True


# ------------------------------------------------------------------ mounts, links, namespaces, cgroups
def mounts_below(*directories: str, mountinfo: str | None = None) -> list[str]:
    """Return mount points at or below the directories, deepest first."""
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    points = [line.split()[4].encode().decode("unicode_escape") for line in text.splitlines()]
    found = [p for p in points for d in directories if p == d or p.startswith(f"{d}/")]
    return sorted(set(found), key=len, reverse=True)


def link_exists(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def machine_links(machine: Machine, network_devices: Path = Path("/sys/class/net")) -> list[str]:
    """Return the outer ends of the interfaces of the machine, including those no longer in the inventory."""
    names = [machine.link(), *(machine.link(f"eth{number}") for number in range(1, 10))]
    return [name for name in names if (network_devices / name).exists()]


def nspawn_traces(machine: Machine) -> list[Path]:
    """Return directories that systemd-nspawn leaves when it is killed."""
    base = Path("/run/systemd/nspawn")
    return [base / kind / machine.namespace for kind in ("propagate", "unix-export")]


def cgroup_directories(machine: Machine) -> list[Path]:
    places = [CGROUPS, CGROUPS / "systemd", CGROUPS / "unified", CGROUPS / "machine.slice"]
    names = (machine.cgroup, machine.unit)
    return [place / name for place in places for name in names if (place / name).is_dir()]


def remove_cgroup(directory: Path, timeout: float = 30) -> None:
    """Remove a cgroup with all below it. Raises LabError if a process stays in it.

    An ending process leaves its cgroup after its root directory, so it may be in a cgroup but not in processes().
    """

    def removed() -> bool:
        for path, _, _ in os.walk(directory, topdown=False):
            try:
                os.rmdir(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                return False
        return True

    if not wait_for(removed, timeout):
        members = " ".join(pid for path in directory.rglob("cgroup.procs") for pid in path.read_text().split())
        raise LabError(f"The cgroup {directory} cannot be removed: processes {members or '(ending)'} stay in it.")


def unit_active(machine: Machine) -> bool:
    if not Path("/run/systemd/system").is_dir():
        return False
    state = run(["systemctl", "is-active", machine.unit], check=False).stdout.strip()
    return state in ("active", "activating", "deactivating", "reloading")
