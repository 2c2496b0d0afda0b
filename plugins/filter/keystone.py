# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters for users of Keystone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleFilterError

# Ansible adds module_utils/ to this package for modules, but not for plugins.
MODULE_UTILS = str(Path(__file__).resolve().parents[2] / "module_utils")
if MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(MODULE_UTILS)

from ansible.module_utils.kilonova.config.passwords import derived_password


def compute_identity(host: str, seed: str, turn: str = "") -> dict[str, str]:
    """Return the Keystone user of the nova-compute of a host, as the key ``users`` of a service map has them.

    turn: part of the name. Two users are in use in turn, so that the password can change.
    """
    try:
        return {"name": f"nova-compute{turn}-{host}", "password": derived_password(seed, "identity", host)}
    except ValueError as error:
        raise AnsibleFilterError(f"compute_identity: {error}") from error


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"compute_identity": compute_identity}
