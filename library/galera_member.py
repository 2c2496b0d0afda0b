#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Make a host a member of the Galera cluster of all controllers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: galera_member
short_description: Make a host a member of a Galera cluster
version_added: "0.1.0"
description:
  - Finds out whether the host is a member of the cluster, joins it, or begins it. The cluster begins on one host only,
    and only with proof that none exists, which is that all members were looked at and none has data of one. Where
    exactly one of them has databases, it begins there and keeps them; otherwise on O(lead).
  - Leaves a permit beside the data of the host that begins. What runs MariaDB there, C(galera-member), begins a cluster
    with it; without one it waits for a member to join. The permit is removed once the cluster is there.
  - A cluster that is down as a whole is not taken for one that does not exist. Its members begin it again by themselves
    when they are started together.
  - Fails where data would be lost. That is where members have data of different clusters, where a host with databases
    of its own would join a cluster, and where several hosts have databases and there is no cluster.
author: The Kilonova authors (@kilonova)
options:
  name:
    description: Name of the host in O(members).
    type: str
    required: true
  lead:
    description: The member on which a cluster without data begins.
    type: str
    required: true
  members:
    description: >-
      What each member has, the fact C(galera) of M(preflight_facts), by name. Null for one that was not looked at.
      Members that are in a cluster are asked about these.
    type: dict
    required: true
attributes:
  check_mode:
    support: full
    description: Predicts whether the host would begin a cluster.
  diff_mode:
    support: full
    description: Shows the permit that would be made or removed.
notes:
  - Starts nothing.
"""

EXAMPLES = r"""
- name: Make the host a member of the cluster
  galera_member:
    name: ctl2
    lead: ctl1
    members:
      ctl1: {uuid: 0b0ef34b-6d37-11f0-a1d5-3e0c5f8f2b11, databases: [nova], alone: false}
      ctl2: {uuid: "", databases: [], alone: false}
      ctl3: null
"""

RETURN = r"""
changes:
  description: What was changed, one line.
  returned: always
  type: list
  elements: str
  sample: ["begin the cluster with what ctl1 has"]
name:
  description: Name of the host.
  returned: always
  type: str
does:
  description: Whether the host is a V(member), will V(join), or V(begin)s the cluster.
  returned: always
  type: str
begins:
  description: Whether the host begins the cluster when MariaDB starts.
  returned: always
  type: bool
runs:
  description: Whether the host is a member whose MariaDB runs.
  returned: always
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.database.galera import ARGUMENT_SPEC, run


def main() -> None:
    """Run the module."""
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
