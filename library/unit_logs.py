#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: unit_logs
short_description: Return the last log lines of one layer of the cloud
version_added: "0.1.0"
description:
  - Returns the end of the journal and of the log files of the units that belong to a layer, as other modules do in
    their failure messages. For hosts other than the one that a module failed on.
  - Leaves out units that this host does not have.
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [read_only]
options:
  layer:
    description: Layer of the cloud, such as V(Nova compute) or V(OVN), as in the C(layer) of a failed module's result.
    type: str
    required: true
  lines:
    description: How many lines of each source.
    type: int
    default: 15
notes:
  - Reads the index C(/var/lib/kilonova/services.json) that C(site.yml) writes. On a host without it, RV(text) says so.
"""

EXAMPLES = r"""
- name: Get the last log lines of nova-compute
  unit_logs:
    layer: Nova compute
"""

RETURN = r"""
text:
  description: Log lines, labelled with host and source; empty if the host has none of the units.
  returned: always
  type: str
"""

import socket

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.logs import unit_log
from ansible.module_utils.kilonova.system.service_index import read_index


def installed(module: AnsibleModule, units: list[str]) -> list[str]:
    """Return the units that systemd finds a unit file for."""
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
    layer, index = module.params["layer"], read_index()
    if index.problem:
        module.exit_json(changed=False, text=f"=== {socket.gethostname()}\n(no logs: {index.problem})")
    if layer not in index.layers:
        module.fail_json(msg=f"'{layer}' is not a layer of the cloud; the layers are: {', '.join(index.layers)}")
    logs = [unit_log(unit, module.params["lines"]) for unit in installed(module, index.layers[layer])]
    module.exit_json(changed=False, text="\n".join([f"=== {socket.gethostname()}", *logs]) if logs else "")


if __name__ == "__main__":
    main()
