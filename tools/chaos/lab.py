# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The lab whose runs are killed: its machines, its connections, and the files in it that must not change."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from plugins.filter.lab import lab_id
from tools.chaos.moments import PROJECT

LAB_STATE = Path("/var/lib/kilonova/lab")
# Below the root of a host. Temporary files have other names.
KEYS = ("etc/keystone/*-keys/*[0-9]", "etc/pki/**/[!.]*.pem", "root/.ssh/kilonova_id_ed25519")


def own_inventory(directory: Path) -> Path:
    """Write an inventory like the default one for a lab named chaos."""
    (directory / "group_vars" / "all").mkdir(parents=True, exist_ok=True)
    groups = {
        "lab": {
            "vars": {"lab_name": "chaos", "lab_project_directory": str(PROJECT)},
            "hosts": {"chaos1": None},
        },
        "controller": {"hosts": {"chaos1": None}},
        "compute": {"hosts": {"chaos1": None}},
    }
    (directory / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}, sort_keys=False))
    shared = PROJECT / "inventory" / "lab" / "group_vars" / "lab.yml"
    (directory / "group_vars" / "lab.yml").write_text(shared.read_text())
    return directory


def parents() -> dict[int, int]:
    """Return the parent of each process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            found[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    return found


def of_a_session(cgroup: str) -> bool:
    """Return whether the text of /proc/PID/cgroup belongs to a login or to something started by one."""
    return bool(re.search(r"/(?:sshd?(?:@[^/]*)?\.service|session-[^/]*\.scope)(?:/|$)", cgroup, re.MULTILINE))


def same_root(pid: int, identity: os.stat_result) -> bool:
    """Return whether a process has this root directory."""
    try:
        root = os.stat(f"/proc/{pid}/root")
    except OSError:
        return False
    return (root.st_dev, root.st_ino) == (identity.st_dev, identity.st_ino)


@dataclass
class Lab:
    """The lab of an inventory, seen from this computer."""

    inventory: Path
    name: str
    machines: list[str]

    @classmethod
    def of(cls, inventory: Path) -> Lab:
        """Read an inventory. Raise SystemExit if it has a host that is not a lab machine."""
        text = (inventory / "hosts.yml").read_text() if inventory.is_dir() else inventory.read_text()
        groups = yaml.safe_load(text)["all"]["children"]
        lab = groups.get("lab") or {}
        hosts = {host for group in groups.values() for host in group.get("hosts") or {}}
        if "lab_name" not in lab.get("vars", {}) or hosts != set(lab["hosts"]):
            raise SystemExit(f"chaos: {inventory} has hosts that are not lab machines. Only a lab may be killed.")
        return cls(inventory, lab["vars"]["lab_name"], list(lab["hosts"]))

    @property
    def directory(self) -> Path:
        """The directory of the lab on this computer."""
        return LAB_STATE / lab_id(str(PROJECT), self.name)

    @property
    def secrets(self) -> Path:
        """The file with the generated secrets."""
        return self.inventory / "group_vars" / "all" / "secrets.yml"

    @property
    def roots(self) -> list[Path]:
        """The root directories of the machines."""
        return [self.directory / "machines" / name / "root" for name in self.machines]

    def connections(self) -> Iterator[int]:
        """Find the shared ssh connections, which outlive the run that opened them."""
        marker = f"{self.directory}/connections/"
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().decode(errors="replace")
                if marker in words and words.startswith("ssh"):
                    yield int(path.parent.name)

    def sessions(self) -> Iterator[int]:
        """Find the processes that connections started on the machines, without the ssh server."""
        above = parents()
        for root in self.roots:
            with contextlib.suppress(OSError):
                identity = root.stat()
                inside = [pid for pid in above if same_root(pid, identity)]
                for pid in inside:
                    # The parent of the server is PID 1 of the machine, whose parent is outside.
                    server = above.get(above[pid]) not in inside
                    if not server and of_a_session(Path(f"/proc/{pid}/cgroup").read_text()):
                        yield pid


class Steady:
    """Watch files that are written once: keys and secrets."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.first: dict[str, str] = {}

    def files(self) -> dict[str, str]:
        """Return the checksums of these files."""
        secrets = self.lab.secrets
        found = {str(secrets.relative_to(self.lab.inventory)): secrets} if secrets.exists() else {}
        for root in self.lab.roots:
            paths = [path for pattern in KEYS for path in root.glob(pattern)]
            found |= {f"{root.parent.name}:/{path.relative_to(root)}": path for path in paths}
        return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()}

    def look(self) -> list[str]:
        """Return what differs from when it was first seen."""
        now = self.files()
        changed = [name for name, digest in self.first.items() if now.get(name) != digest]
        self.first = now | self.first
        return [f"{name} {'changed' if name in now else 'is gone'}" for name in changed]
