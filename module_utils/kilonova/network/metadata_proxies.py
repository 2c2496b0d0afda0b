# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Replace HAProxies that serve metadata to guests without limits.

Documented in library/metadata_proxies.py.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.logs import unit_log

ARGUMENT_SPEC: dict[str, Any] = {
    "program": {"type": "path", "required": True},
    "unit": {"type": "str", "default": "neutron-ovn-metadata-agent.service"},
    "timeout": {"type": "int", "default": 120},
}
POLL_SECONDS = 0.5


def call(module: AnsibleModule, *command: str) -> str:
    """Return the output of a command."""
    code, output, error = module.run_command(list(command))
    if code != 0:
        module.fail_json(msg=f"'{' '.join(command)}' failed: {error.strip() or output.strip()}")
    return str(output)


def unlimited(module: AnsibleModule) -> list[str]:
    """Return a line for each HAProxy without limits."""
    found = json.loads(call(module, module.params["program"], "--unlimited"))
    return [f"HAProxy of network {network} {why}" for network, why in sorted(found.items())]


def wait(module: AnsibleModule, timeout: float) -> list[str]:
    """Return the HAProxies without limits that are left when there are none, or the time is over."""
    deadline = time.monotonic() + timeout
    while (left := unlimited(module)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return left


def run(module: AnsibleModule) -> None:
    """Restart the agent if there are HAProxies without limits, and wait until there are none."""
    program, unit, timeout = (module.params[name] for name in ("program", "unit", "timeout"))
    if not os.path.exists(program):
        if not module.check_mode:
            module.fail_json(msg=f"{program} does not exist on this host")
        module.exit_json(changed=False, changes=[])
    changes = unlimited(module)
    if changes and not module.check_mode:
        # Those that are not expired now were before, and the agent is replacing them.
        if call(module, program, "--expire"):
            call(module, "systemctl", "restart", unit)
        if left := wait(module, timeout):
            module.fail_json(msg=f"{unit} did not replace them within {timeout} s: {'; '.join(left)}\n{unit_log(unit)}")
    module.exit_json(changed=bool(changes), changes=changes)
