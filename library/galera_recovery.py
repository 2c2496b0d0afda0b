#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Begin a Galera cluster again that is down as a whole, with a member that an operator chooses."""

from __future__ import annotations

DOCUMENTATION = r"""
module: galera_recovery
short_description: Begin a Galera cluster again with a chosen member
version_added: "0.1.0"
description:
  - For a cluster that is down as a whole and whose members cannot begin it by themselves, because one of them does not
    come back. They run and wait.
  - Shows the position of the data of each member. On the chosen one it leaves the permit to begin, which is valid for
    exactly these data, and waits until the cluster is there. The others join by themselves.
  - Does nothing where a member is in the cluster. Fails where a member that answers has newer data than the chosen one,
    where members have data of different clusters, and where one that does not answer is not in O(without).
author: The Kilonova authors (@kilonova)
options:
  name:
    description: Name of the host in the cluster.
    type: str
    required: true
  choice:
    description: The member to begin with. Without one, the module shows the members and fails.
    type: str
    default: ""
  without:
    description: All members that do not wait. What only they have committed may be lost.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait for the cluster.
    type: int
    default: 120
attributes:
  check_mode:
    support: full
    description: Looks, and refuses what it would refuse.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Begin the cluster again
  galera_recovery:
    name: "{{ inventory_hostname }}"
    choice: ctl2
    without: [ctl3]
"""

RETURN = r"""
members:
  description: What each member has, one line each.
  returned: always
  type: list
  elements: str
  sample: ["ctl1: waits; cluster 0b0ef34b-6d37-11f0-a1d5-3e0c5f8f2b11, transaction 4711", "ctl3: does not answer"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.database.galera_recovery import ARGUMENT_SPEC, run


def main() -> None:
    """Run the module."""
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
