# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the names of hosts, the groups, the batch size and the tags of a run."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable, Mapping

from ansible.module_utils.kilonova.preflight.messages import message

HOST_NAME_LENGTH = 64
LABEL = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", re.IGNORECASE)
BATCH = re.compile(r"[1-9]\d*|([1-9]\d?|100)%")
# Tags that Ansible defines.
SPECIAL_TAGS = {"all", "always", "never", "tagged", "untagged"}


def check_host_name(name: str) -> list[str]:
    """Check the name in the inventory, which becomes the host name."""
    instead = (
        "Rename the host in the inventory to something like node-1, and set ansible_host to the address to reach it by"
    )
    try:
        ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        return [
            message(
                "inventory_hostname",
                name,
                "this is an address, and the name in the inventory becomes the host name",
                instead,
            )
        ]
    if len(name) > HOST_NAME_LENGTH:
        return [
            message(
                "inventory_hostname",
                name,
                f"a host name has at most {HOST_NAME_LENGTH} characters, this has {len(name)}",
                instead,
            )
        ]
    if all(LABEL.match(part) for part in name.split(".")):
        return []
    why = (
        "a host name consists of letters, digits and -, does not begin or end with -, and has at most 63 characters "
        "between two dots"
    )
    return [message("inventory_hostname", name, why, instead)]


def check_one_name(host: str, connections: Mapping[str, tuple[str, str]]) -> list[str]:
    """Report other names of the inventory for this host: it would be renamed, and configured twice."""
    address, port = connections.get(host, (host, ""))
    others = sorted(name for name, other in connections.items() if name != host and other == (address, port))
    if not others:
        return []
    why = f"{', '.join(others)} in the inventory is the same host (port {port})"
    return [message("ansible_host", address, why, "Give each host its own address, or leave one name")]


def check_groups(host: str, first: str, groups: Mapping[str, list[str]]) -> list[str]:
    """Check the groups; only the first host reports what concerns the whole inventory."""
    controllers = list(groups.get("controller", []))
    computes = list(groups.get("compute", []))
    found = []
    if host not in {*controllers, *computes, *groups.get("storage", [])}:
        found.append(
            f"Host {host} is in none of the groups controller, compute and storage: nothing would be deployed on it. "
            "Add it to one of them, or remove it."
        )
    if host != first:
        return found
    if not controllers:
        found.append(
            "The group controller has no host: the APIs, the database and the queue run there. Put one host into it."
        )
    if not computes:
        found.append(
            "The group compute has no host: guests run there. Put at least one host into it; the controller may be in "
            "both."
        )
    return found


def note_groups(host: str, first: str, groups: Mapping[str, list[str]]) -> list[str]:
    """Note hosts that nothing is deployed on; only the first host reports them."""
    if host != first:
        return []
    known = {name for group in ("controller", "compute", "storage", "lab") for name in groups.get(group, [])}
    return [
        f"Host {other} is in none of the groups controller, compute and storage, so nothing is deployed on it."
        for other in sorted(set(groups.get("all", [])) - known - {host, "localhost"})
    ]


def check_batch(value: object, controller: str, used: object) -> list[str]:
    """Require the number of computes at a time to be valid and alike on all hosts; only the controller's is used."""
    variable = "cloud_compute_batch"
    if not BATCH.fullmatch(str(value)):
        why = "this is neither a number of computes from 1 nor a percentage from 1% to 100%"
        return [message(variable, value, why, "Write a value such as 1 or 25%")]
    if str(value) != str(used):
        why = f"it must be the same on all hosts, and is {used!r} on {controller}, whose value is used"
        return [message(variable, value, why, "Write it in group_vars/all, and nowhere else")]
    return []


def check_tags(known: Iterable[str], run: Iterable[str]) -> list[str]:
    """Report tags of --tags that no task has. An unknown tag of --skip-tags leaves everything in, and does no harm."""
    tags = sorted({*known} - SPECIAL_TAGS)
    found = []
    for tag in run:
        if tag in SPECIAL_TAGS or tag in tags:
            continue
        close = difflib.get_close_matches(tag, tags, n=1)
        instead = f"Did you mean {close[0]}? The tags are: " if close else "Write one of: "
        found.append(
            message("--tags", tag, "no task has this tag, so nothing would run for it", instead + ", ".join(tags))
        )
    return found
