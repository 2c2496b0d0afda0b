# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the group storage: devices of OSDs, memory, the identity of the cluster."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.module_utils.kilonova.preflight.messages import HIDDEN, Facts, message
from ansible.module_utils.kilonova.storage.keys import osd_uuid
from ansible.module_utils.kilonova.storage.sizes import bytes_of

DEVICES = "ceph_osd_devices"
EXISTING = "ceph_existing"
CLIENTS = ("glance", "nova", "cinder", "cinder-backup")
SMALLEST_MIB = 5120
FORM = "Write paths of block devices, or {file: /path, size: 20G}"


def check_entry(entry: object) -> list[str]:
    """Check the form of an entry."""
    if isinstance(entry, str):
        absolute = entry.startswith("/")
        return [] if absolute else [message(DEVICES, entry, "this is no absolute path", FORM)]
    if not isinstance(entry, Mapping) or set(entry) != {"file", "size"} or not str(entry["file"]).startswith("/"):
        return [message(DEVICES, entry, "this is neither a path nor a file with a size", FORM)]
    try:
        size = bytes_of(str(entry["size"])) // 2**20
    except ValueError as error:
        return [message(DEVICES, entry, str(error), FORM)]
    if size < SMALLEST_MIB:
        return [message(DEVICES, entry, f"an OSD needs {SMALLEST_MIB} MiB", "Write a larger size")]
    return []


def path_of(entry: Any) -> str:
    """Return the path of an entry."""
    return str(entry["file"] if isinstance(entry, Mapping) else entry)


def check_block(path: str, found: Mapping[str, Any], own: bool) -> list[str]:
    """Check a block device. own: whether it is the OSD that it is to be."""
    if found["kind"] == "":
        return [message(DEVICES, path, "this host has nothing of that name", "Write the path of an empty block device")]
    if found["kind"] != "block":
        return [message(DEVICES, path, "this is no block device", FORM)]
    if own:
        return []
    if found["mounts"]:
        return [message(DEVICES, path, f"it is mounted at {', '.join(found['mounts'])}", "Choose an empty device")]
    if found["read_only"]:
        return [message(DEVICES, path, "it can only be read", "Choose another device")]
    if found["osd"] or found["holds"]:
        what = f"an OSD ({found['osd']})" if found["osd"] else ", ".join(found["holds"])
        return [message(DEVICES, path, f"it holds {what}", f"If nothing on it is needed: wipefs --all {path}")]
    if found["size_mib"] < SMALLEST_MIB:
        return [
            message(DEVICES, path, f"it has {found['size_mib']} MiB, and an OSD needs {SMALLEST_MIB}", "Choose another")
        ]
    return []


def check_file(path: str, found: Mapping[str, Any], own: bool) -> list[str]:
    """Check the place of a file."""
    if found["kind"] == "block":
        return [message(DEVICES, path, "this is a block device, and has a size of its own", "Leave the size out")]
    if found["kind"] == "other":
        return [message(DEVICES, path, "this is neither a file nor free to make one", "Choose another path")]
    if found["osd"] and not own:
        return [message(DEVICES, path, f"it holds the data of another OSD ({found['osd']})", "Choose another path")]
    return []


def check_devices(facts: Facts, devices: object, host: str, fsid: str) -> list[str]:
    """Check what the OSDs of a storage host are to be made of."""
    if not isinstance(devices, list):
        return []  # check_types reports it.
    if not devices:
        why = "this host of the group storage stores nothing without one"
        return [message(DEVICES, devices, why, f"{FORM}, or take the host out of the group")]
    if problems := [text for entry in devices for text in check_entry(entry)]:
        return problems
    problems, seen = [], dict[str, str]()
    for entry in devices:
        path = path_of(entry)
        found = facts.get("devices", {}).get(path) or {"kind": "", "real": path, "osd": "", "holds": [], "mounts": []}
        if found["real"] in seen:
            twice = path if seen[found["real"]] == path else f"{path}, which is {seen[found['real']]}"
            problems.append(message(DEVICES, path, f"{twice}, is named twice", "Leave one of the names"))
            continue
        seen[found["real"]] = path
        own = bool(found["osd"]) and found["osd"] == osd_uuid(fsid, host, path)
        check = check_file if isinstance(entry, Mapping) else check_block
        problems += check(path, found, own)
    return problems


def check_memory(facts: Facts, needed: int, target: int, devices: object) -> list[str]:
    """Require memory for the OSDs beside the other services of the host."""
    count = len(devices) if isinstance(devices, list) else 0
    if facts["memory_mib"] >= needed + count * target:
        return []
    why = (
        f"{count} OSD{'s' * (count != 1)} of {target} MiB each and the other services ({needed} MiB) need more than "
        f"the {facts['memory_mib']} MiB of this host"
    )
    return [message("ceph_osd_memory_target_mib", target, why, "Add memory, or write fewer OSDs in ceph_osd_devices")]


def check_identity(facts: Facts, fsid: str) -> list[str]:
    """Refuse a secret that makes another cluster than the one that the host is part of."""
    others = [one for one in facts.get("ceph_fsids", []) if one != fsid]
    why = f"it makes the cluster {fsid}, and this host has OSDs of {', '.join(others)}"
    instead = "Restore the secret with which that cluster was deployed, or remove these OSDs (docs/operate/storage.md)"
    return [message("ceph_seed", HIDDEN, why, instead)] if others else []


def check_existing(existing: object, storage: Sequence[str]) -> list[str]:
    """Check the description of a cluster that exists."""
    if not isinstance(existing, Mapping) or not existing:
        return []
    if storage:
        why = f"the group storage has hosts as well ({', '.join(storage)}), and a cloud has one store"
        return [message(EXISTING, sorted(existing), why, "Remove it, or the hosts from the group")]
    keys = existing.get("keys") if isinstance(existing.get("keys"), Mapping) else {}
    absent = [name for name in ("fsid", "monitors", "keys") if not existing.get(name)]
    absent += [f"keys.{name}" for name in CLIENTS if keys and not keys.get(name)]
    if absent:
        return [message(EXISTING, sorted(existing), f"it lacks {', '.join(absent)}", "Add them from the cluster")]
    try:
        uuid.UUID(str(existing["fsid"]))
    except ValueError:
        why = f"its fsid, {existing['fsid']!r}, is no UUID"
        return [message(EXISTING, sorted(existing), why, "Write what 'ceph fsid' prints there")]
    return []


def check_monitors(facts: Facts, existing: object) -> list[str]:
    """Report monitors of an existing cluster that do not answer this host."""
    silent = facts.get("silent_peers", [])
    if not silent:
        return []
    why = f"its monitors do not answer this host at {', '.join(silent)}"
    names = sorted(existing) if isinstance(existing, Mapping) else existing
    instead = "Correct monitors, or let this host through (the second version of the protocol, port 3300)"
    return [message(EXISTING, names, why, instead)]


def note_hosts(storage: Sequence[str], size: int) -> list[str]:
    """Note what so few storage hosts mean."""
    found = []
    if storage and size == 1:
        found.append(
            "The store keeps one copy of each object: a disk that fails takes what is on it with it. Three hosts in "
            "the group storage keep three."
        )
    if len(storage) == 2:
        found.append(
            f"With two storage hosts there is one monitor, on {storage[0]}: without that host, the store stands still. "
            "Three hosts have three monitors."
        )
    return found
