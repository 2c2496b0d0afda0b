# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Check a cloud through its APIs. The logic of the module cloud_health."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.api import CloudApi
from ansible.module_utils.kilonova.cloud.client import CLIENT_ARGUMENTS, connect
from ansible.module_utils.kilonova.cloud.health import HEALTH_ARGUMENTS, Unhealthy, healthy, look
from ansible.module_utils.kilonova.cloud.image_data import STORE_LAYER

ARGUMENT_SPEC: dict[str, Any] = {
    **CLIENT_ARGUMENTS,
    **HEALTH_ARGUMENTS,
    "servers": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 60},
    "report_only": {"type": "bool", "default": False},
}


def run(module: AnsibleModule) -> None:
    params = module.params
    api = CloudApi(connect(module))
    expected = params["computes"], params["images"], params["servers"]
    if params["report_only"]:
        state, problems = look(api, *expected, params["silent_hosts"])
        lasting = [f"{one['layer']}: {one['message']}" for one in problems if not one["passes"]]
        silent = [one["message"] for one in problems if one["layer"] == STORE_LAYER]
        # A dry run lists what no run corrects, and what it could not see.
        dry = {"needs_you": lasting, "not_looked_at": "; ".join(silent)} if module.check_mode else {}
        module.exit_json(changed=False, problems=problems, **dry, **state)
    try:
        state, _ = healthy(api, *expected, params["timeout"], params["silent_hosts"])
    except Unhealthy as error:
        module.fail_json(msg=str(error), problems=error.problems, layer=error.layer)
    module.exit_json(changed=False, problems=[], **state)
