#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Converge Nova's cell mappings and map compute hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nova_cells
short_description: Converge Nova's cell mappings and map compute hosts
version_added: "0.1.0"
description:
  - Maps cell0 and the listed cells, and corrects their database connections and transport URLs.
  - Waits until all expected compute hosts have registered, then maps them and all other registered hosts. Nova never
    schedules to a host without a mapping (C(not mapped to any cell)), and C(nova-manage cell_v2 discover_hosts)
    succeeds even if it finds no host.
  - Reads Nova's databases directly, which takes milliseconds, and starts C(nova-manage) only for a change. It runs as
    the system user C(nova) with a private, temporary configuration.
  - Stores templates such as C({scheme}://{username}:{password}@{hostname}:{port}/nova) instead of URLs where host and
    login are those of the first listed cell, which must be those in C(nova.conf). Nova fills them in from its
    configuration (C(CellMapping._format_url) in nova/objects/cell_mapping.py), so that its database holds no password,
    and a new password needs no change there.
  - C(discover_hosts) skips compute nodes that the cell's database marks as mapped. The module clears this mark where
    the mapping does not exist, such as after the API database was restored.
options:
  api_connection:
    description: SQLAlchemy URL of the API database (C([api_database]connection)).
    type: str
    required: true
  cell0_connection:
    description: SQLAlchemy URL of the database of cell0.
    type: str
    required: true
  cells:
    description: >-
      Cells other than cell0, first the one whose database and message queue C(nova.conf) has. Cells that are not listed
      stay as they are.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the cell.
        type: str
        required: true
      connection:
        description: SQLAlchemy URL of the cell's database.
        type: str
        required: true
      transport_url:
        description: URL of the cell's message queue.
        type: str
        required: true
  expected_hosts:
    description:
      - Compute hosts that must be mapped, by the names that nova-compute uses (option C(host), by default the host
        name).
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait for the expected hosts. Check mode never waits.
    type: int
    default: 180
attributes:
  check_mode:
    support: full
    description:
      - Reads the databases once and reports what would change. RV(unmapped) lists the expected hosts that are not
        mapped.
      - Expected hosts that have not registered count as hosts that would be mapped.
  diff_mode:
    support: full
    description: Shows the differences, with passwords masked.
notes:
  - Maps the other hosts and then fails when expected hosts do not register in time. The message says what is known
    about each.
  - Fails when the schemas do not exist (M(openstack_schemas)), when several cells have the same name, and when
    nova-manage fails, with the last lines of its output.
  - nova-api, nova-scheduler and nova-conductor read the mappings only when they start. Restart them if RV(mappings) is
    not empty.
requirements: [python3-pymysql, nova-common]
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Map the cells and the compute hosts
  nova_cells:
    api_connection: "{{ 'nova' | database_url(nova_database_password, '192.0.2.10', 'nova_api') }}"
    cell0_connection: "{{ 'nova' | database_url(nova_database_password, '192.0.2.10', 'nova_cell0') }}"
    cells:
      - name: cell1
        connection: "{{ 'nova' | database_url(nova_database_password, '192.0.2.10', 'nova') }}"
        transport_url: "{{ 'openstack' | transport_url(nova_messaging_password, '192.0.2.10') }}"
    expected_hosts: [compute1, compute2]
"""

RETURN = r"""
mappings:
  description: Changes to cell mappings that were made, or would be in check mode, one line each.
  returned: always
  type: list
  elements: str
  sample: [map cell0, correct the transport URL of cell1]
hosts:
  description: Compute hosts that were mapped, or would be in check mode.
  returned: always
  type: list
  elements: str
mapped:
  description: All compute hosts that are mapped afterwards. In check mode, those that are mapped or could be now.
  returned: always
  type: list
  elements: str
unmapped:
  description:
    - Expected hosts that are not mapped afterwards, which makes the module fail. In check mode, those that are not
      mapped now; all expected hosts if the databases cannot be read.
  returned: always
  type: list
  elements: str
missing:
  description: Expected hosts that have not registered.
  returned: always
  type: list
  elements: str
waited:
  description: Seconds spent waiting for hosts.
  returned: always
  type: float
needs_you:
  description: Cells for which several mappings exist, one sentence each.
  returned: in check mode, when there are any
  type: list
  elements: str
not_looked_at:
  description: Why the databases could not be read although MariaDB is installed. RV(ignore:changed) is then false.
  returned: in check mode, when MariaDB does not answer
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.nova_cells import ARGUMENT_SPEC, run


def main() -> None:
    """Run the module."""
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
