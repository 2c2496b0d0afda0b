# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters for the identity of a Ceph cluster, its clients, and the keys of its entities, derived from one secret."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleFilterError

# Ansible adds module_utils/ to this package for modules, but not for plugins.
MODULE_UTILS = str(Path(__file__).resolve().parents[2] / "module_utils")
if MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(MODULE_UTILS)

from ansible.module_utils.kilonova.storage import keys as derivation


def ceph_key(seed: str, entity: str) -> str:
    """Return the key of an entity, such as client.glance."""
    try:
        return derivation.key(seed, entity)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


def ceph_client_keys(seed: str, clients: Iterable[str]) -> dict[str, str]:
    """Return the keys of clients, by their names without ``client.``."""
    return {name: ceph_key(seed, f"client.{name}") for name in clients}


def ceph_access(
    clients: Mapping[str, Mapping[str, Any]], keys: Mapping[str, str], groups: Iterable[str]
) -> list[dict[str, Any]]:
    """Return the clients whose keys hosts of some groups have, as the module ceph_access takes them."""
    return [
        {"name": name, "key": keys[name], "writes": client["writes"], "reads": client["reads"]}
        for name, client in clients.items()
        if set(client["hosts"]) & set(groups)
    ]


def ceph_entities(clients: Mapping[str, Mapping[str, Any]], keys: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the clients as the module ceph_pools takes them, with the least rights that let them work.

    The profile rbd of monitors lets a client break the locks of a host that died.
    """
    found = []
    for name, client in clients.items():
        writes = [f"profile rbd pool={pool}" for pool in client["writes"]]
        reads = [f"profile rbd-read-only pool={pool}" for pool in client["reads"]]
        caps = {"mon": "profile rbd", "osd": ", ".join(writes + reads), "mgr": ", ".join(writes)}
        found.append({"name": f"client.{name}", "key": keys[name], "caps": caps})
    return found


def ceph_keyrings(clients: Mapping[str, Mapping[str, Any]], keys: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the files with the keys of clients as service maps describe files, by the names of the clients."""
    return {
        name: {
            "dest": f"/etc/ceph/ceph.client.{name}.keyring",
            "content": f"[client.{name}]\n\tkey = {keys.get(name, '')}\n",
            "group": client["group"],
            "mode": "0640",
        }
        for name, client in clients.items()
    }


def ceph_fsid(seed: str) -> str:
    """Return the identifier of the cluster."""
    try:
        return derivation.fsid(seed)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


def ceph_osds(devices: Iterable[Any], fsid: str, host: str, seed: str) -> list[dict[str, str]]:
    """Return the OSDs of a host as the module ceph_osds takes them."""
    found = []
    for entry in devices:
        named = isinstance(entry, Mapping)
        path, size = (str(entry.get("file", "")), str(entry.get("size", ""))) if named else (str(entry), "")
        uuid = derivation.osd_uuid(fsid, host, path)
        found.append({"path": path, "size": size, "uuid": uuid, "key": ceph_key(seed, f"osd.{uuid}")})
    return found


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "ceph_access": ceph_access,
            "ceph_client_keys": ceph_client_keys,
            "ceph_entities": ceph_entities,
            "ceph_fsid": ceph_fsid,
            "ceph_key": ceph_key,
            "ceph_keyrings": ceph_keyrings,
            "ceph_osds": ceph_osds,
        }
