# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Generate the secrets that an inventory does not have yet, once.

Documented in library/secrets_file.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.plugins.action import ActionBase

PROJECT = Path(__file__).resolve().parents[2]
# Ansible makes module_utils importable in modules only.
if str(PROJECT / "module_utils") not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(str(PROJECT / "module_utils"))

from ansible.module_utils.kilonova.preflight import secrets_store

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "required": True},
    "names": {"type": "list", "elements": "str", "required": True},
    "length": {"type": "int", "default": 32},
}


class ActionModule(ActionBase):
    """The action; it needs no connection."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Read the file, add what is missing, and write it."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        path, check_mode = Path(arguments["path"]), self._task.check_mode
        vault = secrets_store.vault_of(self._loader)
        content, encrypted = secrets_store.load(path, vault)
        # Copied letter by letter: Ansible's strings carry tags that the YAML writer cannot represent.
        unset = ["".join(name) for name in arguments["names"] if name not in (task_vars or {})]
        missing = [name for name in unset if name not in content]
        mode_wrong = path.exists() and path.stat().st_mode & 0o077
        result |= {"changed": bool(missing or mode_wrong), "generated": missing, "path": str(path)}
        result["unread"] = [name for name in unset if name in content or not check_mode]
        if check_mode:
            return result
        if missing:
            content |= {name: secrets_store.generate(arguments["length"]) for name in missing}
            secrets_store.write(path, content, vault, encrypted)
        elif mode_wrong:
            path.chmod(0o600)
        return result
