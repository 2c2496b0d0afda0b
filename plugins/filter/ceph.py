# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters for the identity of a Ceph cluster and the keys of its entities, derived from one secret."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleFilterError

# Ansible adds module_utils/ to this package for modules, but not for plugins.
MODULE_UTILS = str(Path(__file__).resolve().parents[2] / "module_utils")
if MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(MODULE_UTILS)

from ansible.module_utils.kilonova.storage import keys


def ceph_key(seed: str, entity: str) -> str:
    """Return the key of an entity, such as client.glance."""
    try:
        return keys.key(seed, entity)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


def ceph_client_keys(seed: str, clients: Iterable[str]) -> dict[str, str]:
    """Return the keys of clients, by their names without ``client.``."""
    return {name: ceph_key(seed, f"client.{name}") for name in clients}


def ceph_fsid(seed: str) -> str:
    """Return the identifier of the cluster."""
    try:
        return keys.fsid(seed)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"ceph_client_keys": ceph_client_keys, "ceph_fsid": ceph_fsid, "ceph_key": ceph_key}
