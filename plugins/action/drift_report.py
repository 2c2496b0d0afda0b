# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Fail where the dry run so far would have changed anything.

Documented in library/drift_report.py.
"""

from __future__ import annotations

import sys
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

# Ansible loads the callback under this name.
CALLBACK = "ansible.plugins.callback.changes"


def verdict(record: list[dict[str, Any]]) -> str:
    """One sentence on all of it; empty where nothing differs."""
    hosts = {entry["host"] for entry in record}
    count = sum(len(entry.get("items", [])) for entry in record)
    blind = sum("not_looked_at" in entry for entry in record)
    parts = [f"{count} difference{'s' * (count != 1)} from the inventory"] if count else []
    parts += [f"{blind} part{'s' * (blind != 1)} that could not be looked at"] if blind else []
    where = f" on {len(hosts)} host{'s' * (len(hosts) != 1)}"
    return f"{' and '.join(parts)}{where}. site.yml with the same inventory corrects what differs." if parts else ""


class ActionModule(ActionBase):
    """The action; it needs no connection."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _VALID_ARGS: frozenset[str] = frozenset()

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Read what the callback remembers and judge it."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        if CALLBACK not in sys.modules:
            raise AnsibleActionFail(
                "drift_report: the callback plugin 'changes' was not loaded. Run ansible-playbook with the project's "
                "ansible.cfg, in its directory or named by ANSIBLE_CONFIG."
            )
        record = list(sys.modules[CALLBACK].RECORD)
        sentence = verdict(record)
        result |= {"changed": False, "failed": bool(sentence), "msg": sentence or "Nothing differs from the inventory."}
        return result
