# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Run the module firewall_tables and confirm tables that it loaded over a new connection.

The host returns to its former tables unless that succeeds (module_utils/kilonova/network/firewall_tables.py).
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
    """Documented in library/firewall_tables.py."""

    MODULE = "firewall_tables"

    def explain(self, why: str, now: dict[str, Any] | None) -> str:
        outcome = (
            "The host does not answer with its former rules either. Look at its console: "
            "sh /var/lib/kilonova/firewall/rollback."
            if now is None
            else "It returned to its former rules by itself and answers again."
        )
        return (
            f"The firewall was not changed: {why} {outcome} Check firewall_ssh_sources, firewall_ssh_ports and "
            "firewall_extra_rules."
        )
