#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: the last log lines of the units of one part of the cloud."""

from __future__ import annotations

DOCUMENTATION = r"""
module: unit_logs
short_description: Get the last log lines that tell about one part of the cloud
version_added: "0.1.0"
description:
  - Reads the end of the journal and of the log files of the units that belong to a part of the cloud, as the other
    modules do for their failure messages. For hosts other than the one that a module failed on.
  - Units that this host does not have are left out.
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [read_only]
options:
  layer:
    description: The part of the cloud, such as V(Nova compute) or V(OVN), as the C(layer) of another module's failure.
    type: str
    required: true
  lines:
    description: How many lines of each source.
    type: int
    default: 15
"""

EXAMPLES = r"""
- name: Get what nova-compute said last
  unit_logs:
    layer: Nova compute
"""

RETURN = r"""
text:
  description: The log lines, labelled with their host and source; empty where the host has none of the units.
  returned: always
  type: str
"""

import socket

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.api import LAYER_UNITS
from ansible.module_utils.kilonova.system.logs import unit_log


def installed(module: AnsibleModule, units: tuple[str, ...]) -> list[str]:
    """The units that systemd knows a file of."""
    known = []
    for unit in units:
        status, output, _ = module.run_command(["systemctl", "show", "--property", "LoadState", "--value", unit])
        if status == 0 and output.strip() not in ("", "not-found"):
            known.append(unit)
    return known


def main() -> None:
    module = AnsibleModule(
        argument_spec={"layer": {"type": "str", "required": True}, "lines": {"type": "int", "default": 15}},
        supports_check_mode=True,
    )
    layer = module.params["layer"]
    if layer not in LAYER_UNITS:
        module.fail_json(msg=f"'{layer}' is no part of the cloud. They are: {', '.join(LAYER_UNITS)}.")
    units = installed(module, LAYER_UNITS[layer])
    parts = [f"=== {socket.gethostname()}", *(unit_log(unit, module.params["lines"]) for unit in units)]
    module.exit_json(changed=False, text="\n".join(parts) if units else "")


if __name__ == "__main__":
    main()
