#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: enable, disable, drain, evacuate or remove a compute."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compute_host
short_description: Enable, disable, drain, evacuate or remove a compute
version_added: "0.1.0"
description:
  - V(enabled) lets the scheduler choose the compute again, and waits until it can, at most three minutes. A compute
    that was evacuated is no longer forced down.
  - V(disabled) leaves its guests where they are; new guests go elsewhere.
  - V(drained) disables it and moves its guests away. Running and paused guests move live, with their disks where these
    are files of the compute; stopped guests move cold. Guests in a state in which Nova cannot move them are listed, and
    then nothing is moved.
  - V(evacuated) is for a compute that died. Waits until Nova has no report of it any more, marks it as forced down and
    starts its guests on other computes. Guests whose disks were files of the compute are listed, and then nothing
    happens, except with O(lose_disks). The caller makes sure that the compute is off.
  - V(removed) deletes the compute service, and with it the host's mapping to its cell and its resource provider in
    Placement, and the host's network agents. The module refuses while the compute has guests or is up.
  - Uses Nova's REST API with microversion 2.79 (C(os-services), C(os-migrateLive), C(migrate), C(confirmResize),
    a server's C(migrations)) and 2.84 (C(os-instance-actions)), and Neutron's C(agents).
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [openstack_client]
options:
  name:
    description: Name of the compute, as Nova knows it.
    type: str
    required: true
  state:
    description: State of the compute.
    type: str
    default: enabled
    choices: [enabled, disabled, drained, evacuated, removed]
  disks:
    description: >-
      Where the disks of the guests of a compute to be evacuated are; V(local) for files of the compute, V(shared) for a
      place that other computes reach, such as Ceph.
    type: str
    default: local
    choices: [local, shared]
  lose_disks:
    description: Evacuate guests whose disks were files of the compute as well. They start from their images.
    type: bool
    default: false
  must_exist:
    description: Let V(drained) fail for a compute that Nova does not know. Otherwise nothing is done.
    type: bool
    default: true
  reason:
    description: Why it is out of service, for other administrators. At most 255 characters.
    type: str
    default: maintenance
  timeout:
    description: Seconds for all guests to move, or for the compute to go down before its removal.
    type: int
    default: 1800
attributes:
  check_mode:
    support: full
    description: Predicts changes and refusals.
  diff_mode:
    support: full
    description: Lists what changes.
"""

EXAMPLES = r"""
- name: Drain cmp2
  compute_host:
    name: cmp2
    state: drained
    reason: new memory

- name: Start the guests of cmp3, which died, on other computes
  compute_host:
    name: cmp3
    state: evacuated
    disks: shared
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, one sentence each, in order.
  returned: always
  type: list
  elements: str
  sample: ["cmp2: disabled", "my_vm: moved live to cmp1 in 12 s"]
moved:
  description: Guests that moved; id, name, how (live, cold or by evacuation), to (their new compute), and seconds.
  returned: with O(state=drained) and O(state=evacuated)
  type: list
  elements: dict
servers:
  description: Guests that were not moved; id, name, status and why.
  returned: when the module refuses or fails because of guests
  type: list
  elements: dict
layer:
  description: The part of the cloud that failed.
  returned: when an API fails, or a compute to be removed stays up
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.compute_host import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
