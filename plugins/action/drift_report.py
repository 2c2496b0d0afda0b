# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Fail on hosts that a dry run found to differ, or could not look at. Or record what concerns several hosts.

Documented in library/drift_report.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

# Ansible adds the project's module_utils for modules, not for plugins.
MODULE_UTILS = str(Path(__file__).resolve().parents[2] / "module_utils")
if MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(MODULE_UTILS)

from ansible.module_utils.kilonova.system.changes import RECORD, verdict


class ActionModule(ActionBase):
    """The action; it needs no connection."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset({"needs_you"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Judge what the callback plugin recorded for this host."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        if not RECORD.kept:
            raise AnsibleActionFail(
                "drift_report: the callback plugin 'changes' was not loaded. Run ansible-playbook with the project's "
                "ansible.cfg, in its directory or named by ANSIBLE_CONFIG."
            )
        if "needs_you" in self._task.args:
            _, arguments = self.validate_argument_spec({"needs_you": {"type": "list", "elements": "str"}})
            return result | {"changed": False, "needs_you": arguments["needs_you"]}
        host = (task_vars or {})["inventory_hostname"]
        entries = [entry for entry in RECORD.entries if entry["host"] == host]
        sentence = verdict(entries)
        if any("not_looked_at" in entry for entry in entries):
            # Ansible ends with 4 where a host, or here a part of it, could not be reached.
            raise AnsibleConnectionFailure(sentence)
        result |= {"changed": False, "failed": bool(sentence), "msg": sentence or "Nothing differs from the inventory."}
        return result
