# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Run the module network_bridge and confirm a change that it started over a new connection.

The host undoes an unconfirmed change (module_utils/kilonova/network/rollback.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils

# Ansible adds the project's module_utils for modules, not for plugins.
MODULE_UTILS = str(Path(__file__).resolve().parents[2] / "module_utils")
if MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(MODULE_UTILS)

from ansible.module_utils.kilonova.network.confirmation import ConfirmingAction


class ActionModule(ConfirmingAction):
    """Documented in library/network_bridge.py."""

    MODULE = "network_bridge"
    # The change begins a second after the module has returned. Earlier connections would use the old configuration.
    START_DELAY = 1.5
    # For ifdown, ifup and DHCP.
    RETURN_SECONDS = 150.0

    def attempt(self, token: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        status = (self.ask(variables, state="inspected") or {}).get("status", {})
        if status.get("applied") and status.get("armed"):
            # The connection just used may have been opened before the change was complete.
            return super().attempt(token, variables)
        return {"failed": True} if status and not status.get("armed") else None

    def explain(self, why: str, now: dict[str, Any] | None) -> str:
        if now is None:
            return (
                f"{why} The host does not answer with its old configuration either. Look at its console: "
                "journalctl -u 'kilonova-bridge-*'; the saved files and the script that restores them are in "
                "/var/lib/kilonova/bridge."
            )
        outcome = (
            "It returned to its old configuration by itself and answers again"
            if now.get("status", {}).get("undone")
            else "The change is no longer armed"
        )
        return (
            f"The bridge was not put in place: {why} {outcome}. Check bridge_method, bridge_address, "
            "bridge_gateway and what flat_interface is plugged into; where the network needs longer (DHCP, spanning "
            f"tree of a switch), raise bridge_rollback_seconds. What the host did:\n{now.get('log', '')}"
        )
