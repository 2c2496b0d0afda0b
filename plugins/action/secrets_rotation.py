# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Write the next stage of a rotation into the file of secrets.

Documented in library/secrets_rotation.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

PROJECT = Path(__file__).resolve().parents[2]
# Ansible makes module_utils importable in modules only.
if str(PROJECT / "module_utils") not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(str(PROJECT / "module_utils"))

from ansible.module_utils.kilonova.preflight import secret_rotation, secrets_store

STATES = ("begun", *secret_rotation.STAGES[1:], "ended")
ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "choices": list(STATES), "required": True},
    "classes": {"type": "dict", "default": {}},
    "rotate": {"type": "raw", "default": []},
    "length": {"type": "int", "default": 32},
}


class ActionModule(ActionBase):
    """The action; it needs no connection."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Read the file, work out its next content, and write it."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        path = Path(arguments["path"])
        content, encrypted = secrets_store.load(path, vault := secrets_store.vault_of(self._loader))
        try:
            wanted = self.next_content(content, arguments, task_vars or {})
        except secret_rotation.RotationError as error:
            raise AnsibleActionFail(str(error)) from None
        rotation = wanted.get(secret_rotation.ROTATION, {})
        result |= {
            "changed": wanted != content,
            "stage": rotation.get("stage", ""),
            "classes": rotation.get("classes", []),
            "secrets": sorted(rotation.get("other", {})),
            "resumed": arguments["state"] == "begun" and bool(content.get(secret_rotation.ROTATION)),
        }
        if wanted != content and not self._task.check_mode:
            secrets_store.write(path, wanted, vault, encrypted)
        return result

    @staticmethod
    def next_content(content: dict[str, Any], arguments: dict[str, Any], used: dict[str, Any]) -> dict[str, Any]:
        """Return what the file has to hold. Raises RotationError."""
        # This one, and others letter by letter: Ansible's strings carry tags that the YAML writer cannot represent.
        state = STATES[STATES.index(arguments["state"])]
        if state == "ended":
            return secret_rotation.end(content)
        if state != "begun":
            return secret_rotation.advance(content, state)
        classes = {"".join(word): ["".join(name) for name in names] for word, names in arguments["classes"].items()}
        words = secret_rotation.words_of(arguments["rotate"])
        started = secret_rotation.begin(content, classes, words, lambda: secrets_store.generate(arguments["length"]))
        if not content.get(secret_rotation.ROTATION):
            names = list(started[secret_rotation.ROTATION]["other"])
            secret_rotation.check_given(names, content, used, arguments["path"])
        return started
