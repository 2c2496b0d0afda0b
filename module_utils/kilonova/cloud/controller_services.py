# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Remove the services of a controller that is gone from Nova and Neutron.

Documented in library/controller_services.py.
"""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.api import CloudApi, CloudError, layer_logs
from ansible.module_utils.kilonova.cloud.client import CLIENT_ARGUMENTS, connect

ARGUMENT_SPEC: dict[str, Any] = {**CLIENT_ARGUMENTS, "name": {"type": "str", "required": True}}
COMPUTE = "nova-compute"


def remove_agents(api: CloudApi, host: str, check_mode: bool) -> list[str]:
    """Delete the agents of a host from Neutron, and with them its chassis from OVN. Raises CloudError."""
    actions = []
    for agent in api.listing("network", "/agents", "agents", host=host):
        if not check_mode:
            api.delete("network", f"/agents/{agent['id']}")
        actions.append(f"{host}: {agent['agent_type']} removed from Neutron")
    return actions


def remove_services(api: CloudApi, host: str, check_mode: bool) -> list[str]:
    """Delete the services of a host from Nova, except nova-compute. Raises CloudError."""
    actions = []
    for service in api.listing("compute", "/os-services", "services", host=host):
        if service["binary"] == COMPUTE:
            continue
        if not check_mode:
            api.delete("compute", f"/os-services/{service['id']}")
        actions.append(f"{host}: {service['binary']} removed from Nova")
    return actions


def run(module: AnsibleModule) -> None:
    """Remove what Nova and Neutron know of a controller."""
    host = module.params["name"]
    api = CloudApi(connect(module), module.params["api_timeout"])
    try:
        actions = remove_services(api, host, module.check_mode) + remove_agents(api, host, module.check_mode)
    except CloudError as error:
        logs = f"\n{layer_logs([error.layer])}" if error.logs_matter else ""
        module.fail_json(msg=f"{error.layer}: {error}{logs}")
    after = "".join(f"{action}\n" for action in actions)
    module.exit_json(
        changed=bool(actions),
        actions=actions,
        diff={"before": "", "after": after, "before_header": host, "after_header": host},
    )
