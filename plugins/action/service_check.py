# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Render the files of all services here, and compare everything with one module call on the host.

Documented in library/service_check.py.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

# Ansible adds the project's module_utils for modules, not for plugins.
MODULE_UTILS = str(Path(__file__).resolve().parents[2] / "module_utils")
if MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(MODULE_UTILS)

from ansible.module_utils.kilonova.config.rendering import FileRenderer, remembering

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "services": {"type": "str", "required": True},
    "verification": {"type": "dict", "default": {}},
    "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
}


class ActionModule(ActionBase):
    """See DOCUMENTATION in library/service_check.py."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        _, arguments = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        name = arguments["services"]
        if not name.isidentifier():
            raise AnsibleActionFail(f"service_check: services must be the name of a variable, not {name!r}")
        templar = remembering(self._templar.copy_with_new_env(available_variables=variables))
        checked = templar.template(trust_as_template(f"{{{{ {name} | map('checks_of') }}}}"))
        renderer = FileRenderer(self, "service_check")
        services = [
            {**service, "files": renderer.render(service["files"], templar.available_variables)} for service in checked
        ]
        encoded = json.dumps({"services": services, "verification": arguments["verification"]}).encode()
        result: dict[str, Any] = self._execute_module(
            module_name="service_check",
            module_args={
                "encoded": base64.b64encode(encoded).decode(),
                "secrets": renderer.secret_forms(arguments["secrets"]),
            },
            task_vars=variables,
        )
        return result
