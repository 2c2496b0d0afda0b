#!/usr/bin/python3
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: ovn_cluster
short_description: Keep OVN's databases of a host members of their Raft clusters
version_added: "0.1.0"
description:
  - Looks at what the clusters of the northbound and southbound databases say of themselves, and brings this host into
    them.
  - Makes a new database only where it is proved that no host has one. A standalone database becomes the first member
    with all that it has. No file is deleted before all members are connected.
author: The Kilonova authors (@kilonova)
options:
  state:
    description:
      - V(looked) returns RV(look) and changes nothing.
      - V(prepared), before the servers start, makes the file of a first member, or sets the file of a member aside that
        the others have taken out. Fails where this host has no database and nobody knows whether others have.
      - V(absent), on another member, waits until a majority is connected without the members in O(databases), and takes
        them out.
      - V(joining) makes files that join the clusters in O(looks).
      - V(member) waits until the servers are members, connected to those that are expected, then removes the files that
        were set aside.
    type: str
    choices: [looked, prepared, absent, joining, member]
    default: member
  databases:
    description: The databases.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Which database.
        type: str
        choices: [northbound, southbound]
        required: true
      address:
        description: Address of the member for other members, such as V(ssl:10.0.0.11:6643).
        type: str
        required: true
      members:
        description: Addresses of all members that the cluster is to have. The first one begins it.
        type: list
        elements: str
        required: true
      expected:
        description: For V(member), the addresses that must be connected. Those of hosts that are down are left out.
        type: list
        elements: str
        default: []
  looks:
    description: For V(prepared), RV(look) of each host that was reached. For V(joining), RV(clusters).
    type: list
    elements: dict
    default: []
  timeout:
    description: Seconds to wait. A dry run asks once.
    type: int
    default: 120
attributes:
  check_mode:
    support: full
    description: Predicts what each state would change.
  diff_mode:
    support: none
    description: RV(changes) says what it does.
notes:
  - "What the servers say: C(ovs-appctl -t /run/ovn/ovnnb_db.ctl cluster/status OVN_Northbound)."
"""

EXAMPLES = r"""
- name: Take the member of a host out that is gone
  ovn_cluster:
    state: absent
    databases:
      - name: northbound
        address: ssl:10.0.0.13:6643
        members: [ssl:10.0.0.11:6643, ssl:10.0.0.12:6643]
  delegate_to: ctl1
"""

RETURN = r"""
look:
  description: >-
    By database, whether this host has a file, C(file), and what its server says, C(serving), C(cluster), C(sid),
    C(members), C(connected), C(leads).
  returned: with state looked
  type: dict
through:
  description: By database that joins, the addresses of those that have it.
  returned: with state prepared
  type: dict
clusters:
  description: By database, the identifier of the cluster, and the addresses of its members.
  returned: with state absent
  type: dict
changes:
  description: What changed, one line each.
  returned: unless state is looked
  type: list
  elements: str
  sample: ["OVN northbound: convert /var/lib/ovn/ovnnb_db.db as ssl:10.0.0.11:6643"]
missing:
  description: Members that are not connected.
  returned: with state member
  type: list
  elements: str
foreign:
  description: Members that are not in O(databases[].members).
  returned: with state member
  type: list
  elements: str
looks:
  description: By database, what its server says.
  returned: with state member
  type: dict
not_looked_at:
  description: Why a dry run could not look. RV(ignore:changed) is then false.
  returned: in check mode, with state member, if a server is not a member
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.network.ovn_cluster import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
