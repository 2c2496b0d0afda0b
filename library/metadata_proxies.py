#!/usr/bin/python3
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: metadata_proxies
short_description: Replace HAProxies that serve metadata to guests without limits
version_added: "0.1.0"
description:
  - Neutron's OVN metadata agent runs one HAProxy for each network that has guests on the host. O(program) starts it
    with limits on what guests send.
  - Asks O(program) which of these HAProxies run without the limits, with other limits or as root, removes their
    configurations, and restarts the agent, which then replaces them. Others go on running.
author: The Kilonova authors (@kilonova)
options:
  program:
    description: Absolute path of the program that the agent calls in place of HAProxy.
    type: path
    required: true
  unit:
    description: systemd unit of the agent.
    type: str
    default: neutron-ovn-metadata-agent.service
  timeout:
    description: Seconds to wait for the agent to replace them.
    type: int
    default: 120
attributes:
  check_mode:
    support: full
    description: Before O(program) is installed, predicts nothing, because the agent starts all HAProxies later.
  diff_mode:
    support: none
    description: RV(changes) says what differs.
notes:
  - If they are not replaced in time, the message has the last log lines of the agent.
"""

EXAMPLES = r"""
- name: Replace HAProxies without limits
  metadata_proxies:
    program: /usr/local/libexec/kilonova/metadata/haproxy
"""

RETURN = r"""
changes:
  description: HAProxies that were replaced, one line each.
  returned: always
  type: list
  elements: str
  sample: ["HAProxy of network ff6e6a86-3a4d-4b4b-9e64-7d1e8a6a4b9f runs without limits"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.network.metadata_proxies import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
