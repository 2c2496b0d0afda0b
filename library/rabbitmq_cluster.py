#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_cluster
short_description: Keep a node a member of RabbitMQ's cluster
version_added: "0.1.0"
description:
  - Looks at what the cluster says of itself, and brings a node into it. RabbitMQ's peer discovery joins a node that has
    no database; this module proves before that such a node would not begin a second cluster, and makes room for it.
  - No database is deleted before all members run.
author: The Kilonova authors (@kilonova)
options:
  state:
    description:
      - V(looked) returns RV(look) and changes nothing.
      - V(prepared), before the node starts, stops it and sets its database aside where the others are a cluster in
        which it is no member. Fails where this host has no database and nobody knows whether others have.
      - V(absent), on another member, waits until a majority of the members runs without O(node), and takes it out.
      - V(member) waits until the node serves, and those in O(expected) with it, then removes the databases that were
        set aside.
    type: str
    choices: [looked, prepared, absent, member]
    default: member
  node:
    description: Name of the node.
    type: str
    required: true
  members:
    description: Names of all nodes that the cluster is to have. Others are named in RV(foreign).
    type: list
    elements: str
    required: true
  looks:
    description: For V(prepared), RV(look) of each host, by the name of its node. Without one, the host was not reached.
    type: dict
    default: {}
  expected:
    description: For V(member), the nodes that must run. Those of hosts that are down are left out.
    type: list
    elements: str
    default: []
  replaced:
    description: Name of the node that this host had before. Its database is removed once all members run.
    type: str
    default: ""
  directory:
    description: Where the databases are.
    type: path
    default: /var/lib/rabbitmq/mnesia
  timeout:
    description: Seconds to wait. A dry run asks once.
    type: int
    default: 300
attributes:
  check_mode:
    support: full
    description: For V(member), also predicts a change where the node is alone in its cluster.
  diff_mode:
    support: none
    description: RV(changes) says what it does.
notes:
  - With V(prepared), C(epmd.socket) need not run yet; the units are the caller's to start.
"""

EXAMPLES = r"""
- name: Look at the cluster
  rabbitmq_cluster:
    state: looked
    node: rabbit@ctl1
    members: [rabbit@ctl1, rabbit@ctl2, rabbit@ctl3]
  register: mine

- name: Take a node out whose host is gone
  rabbitmq_cluster:
    state: absent
    node: rabbit@ctl3
    members: [rabbit@ctl1, rabbit@ctl2]
  delegate_to: ctl1
"""

RETURN = r"""
look:
  description: >-
    What this host knows, C(database), whether its node answers as part of a cluster, C(serving), and what that cluster
    says, C(members), C(running), C(partitions), and how many quorum queues cannot do without this node, C(critical).
  returned: with state looked
  type: dict
  sample:
    database: true
    serving: true
    members: [rabbit@ctl1, rabbit@ctl2, rabbit@ctl3]
    running: [rabbit@ctl1, rabbit@ctl2, rabbit@ctl3]
    partitions: []
    critical: 0
    error: ""
node:
  description: O(node).
  returned: with state looked
  type: str
through:
  description: >-
    Where the node begins without a database while others have one, the nodes that have it, those that serve first. It
    is to start after them, and after one of them has taken it out of the cluster.
  returned: with state prepared
  type: list
  elements: str
reached:
  description: The nodes in O(looks).
  returned: with state prepared
  type: list
  elements: str
whole:
  description: Whether each member sees all members run.
  returned: with state prepared
  type: bool
changes:
  description: What changed, one line each.
  returned: unless state is looked
  type: list
  elements: str
  sample: ["RabbitMQ: rabbit@ctl3 taken out of the cluster"]
missing:
  description: Members that do not run.
  returned: with state member
  type: list
  elements: str
foreign:
  description: Members that are not in O(members).
  returned: with state member
  type: list
  elements: str
  sample: ["RabbitMQ: member rabbit@ctl4"]
not_looked_at:
  description: Why a dry run could not look. RV(ignore:changed) is then false.
  returned: in check mode, with state member, if the node does not serve
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.rabbitmq_cluster import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
