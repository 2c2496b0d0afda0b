# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Render all configuration files of a service here, and install them with one module call on the host.

Documented in library/config_files.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.plugins.action import ActionBase

# Ansible adds the project's module_utils for modules, not for plugins.
MODULE_UTILS = str(Path(__file__).resolve().parents[2] / "module_utils")
if MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(MODULE_UTILS)

from ansible.module_utils.kilonova.config.rendering import FileRenderer

# The fact that tells later tasks of a dry run what would have been written.
PENDING = "config_files_pending"


class ActionModule(ActionBase):
    """See DOCUMENTATION in library/config_files.py."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = dict(self._task.args)
        renderer = FileRenderer(self)
        arguments["files"] = renderer.render(arguments.get("files"), variables)
        arguments["secrets"] = renderer.secret_forms(arguments.get("secrets"))
        result: dict[str, Any] = self._execute_module(
            module_name="config_files", module_args=arguments, task_vars=variables
        )
        if self._task.check_mode:
            earlier = variables.get("ansible_facts", {}).get(PENDING, [])
            pending = [*earlier, *result.get("written_files", [])]
            result["ansible_facts"] = {PENDING: list(dict.fromkeys(pending))}
        return result
