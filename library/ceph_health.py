#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_health
short_description: Say whether a Ceph cluster is well
version_added: "0.1.0"
description:
  - Asks the monitors for the health of the cluster, its fullness, pools, OSDs and monitors.
  - Fails where clients or copies suffer, as with OSDs that are down or full, with the ends of the logs of what is down
    on this host. What passes by itself while hosts start is waited for. Other warnings of Ceph are RV(notes).
author: The Kilonova authors (@kilonova)
options:
  name:
    description: Name of the monitor of this host.
    type: str
    required: true
  report_only:
    description: Whether to report without waiting and without a failure.
    type: bool
    default: false
  timeout:
    description: Seconds to wait for a quorum, and for what passes by itself.
    type: int
    default: 120
  lines:
    description: Lines of each log.
    type: int
    default: 10
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It changes nothing.
notes:
  - Needs the key of C(client.admin).
"""

EXAMPLES = r"""
- name: Check the store
  ceph_health:
    name: "{{ inventory_hostname }}"
"""

RETURN = r"""
status:
  description: What Ceph calls it; C(unknown) where no quorum answers.
  returned: always
  type: str
  sample: HEALTH_OK
problems:
  description: What clients or copies suffer from, in Ceph's words.
  returned: always
  type: list
  elements: str
  sample: ["1 osds down\n    osd.2 (root=default,host=osd3) is down"]
lines:
  description: RV(problems), and the commands that start what is down.
  returned: on failure
  type: list
  elements: str
  sample: ["1 osds down\n    osd.2 (root=default,host=osd3) is down", systemctl restart ceph-osd@2 on osd3]
logs:
  description: The ends of the logs of what is down on this host.
  returned: on failure
  type: list
  elements: str
notes:
  description: Other warnings.
  returned: always
  type: list
  elements: str
used_percent:
  description: How full the cluster is.
  returned: always
  type: float
  sample: 17.3
pools:
  description: What pools hold, and what still fits into them.
  returned: always
  type: list
  elements: dict
  sample: [{name: images, stored_mib: 812, available_mib: 6120}]
osds:
  description: OSDs with their hosts.
  returned: always
  type: list
  elements: dict
  sample: [{number: 0, host: osd1, up: true, in: true}]
monitors:
  description: Monitors, and whether they are in the quorum.
  returned: always
  type: list
  elements: dict
  sample: [{name: osd1, up: true}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.storage.health import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
