#!/usr/bin/python3
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: service_check
short_description: Find out in one call which services of a host differ from their maps
version_added: "0.1.0"
description:
  - Compares the files and units of all given services with the host, and runs the check mode of further modules for
    them. Replaces a module call for each of these on a host where nothing differs.
  - A service counts as changed where a module would change something, fails, cannot look, or needs a decision. The
    tasks of the service then say what.
options:
  services:
    description:
      - Name of the variable that holds the maps of the services, such as V(cloud_services_here). The action plugin
        works it out, and each variable that the maps share once. Given a value, Ansible would do so for each map.
    type: str
    required: true
  verification:
    description:
      - Arguments of M(compute_verification), for a compute. Empty for none.
    type: dict
    default: {}
  secrets:
    description: Texts that messages must not show.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Never changes anything.
    support: full
  diff_mode:
    description: Shows no differences; the tasks of a changed service do.
    support: none
notes:
  - Its action plugin renders the files on the control computer and passes everything on in one encoded option, since
    the log of a host would otherwise show secrets.
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Check all services
  service_check:
    services: cloud_services_here
    secrets: "{{ secrets_values }}"
  register: result
"""

RETURN = r"""
changed_services:
  description: Names of the services that differ, in the order given.
  returned: always
  type: list
  elements: str
reasons:
  description: What differs, by service.
  returned: always
  type: dict
  sample: {nova: [/etc/nova/nova.conf], mariadb: ["mariadb_databases: cannot connect"]}
foreign:
  description: What is on the host beside what the maps want, such as other users of RabbitMQ. Left alone.
  returned: always
  type: list
  elements: str
verified:
  description: Whether a guest ran on this compute since anything on it changed.
  returned: always
  type: bool
"""

import base64
import json

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.service_check import check_services


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            # Made of the documented options by the action plugin.
            "encoded": {"type": "str", "required": True, "no_log": True},
            "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
        },
        supports_check_mode=True,
    )
    given = json.loads(base64.b64decode(module.params["encoded"]))
    module.exit_json(changed=False, **check_services(module, given["services"], given["verification"]))


if __name__ == "__main__":
    main()
