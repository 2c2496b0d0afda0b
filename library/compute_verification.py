#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: detect whether a compute changed since a guest ran on it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compute_verification
short_description: Record that a guest ran on a compute, and detect whether the compute changed since
version_added: "0.1.0"
description:
  - Compares everything that decides whether a guest can run here with its state when a guest last ran. Where nothing
    changed, another test guest would show nothing new.
  - Compares the start of each of O(units) (systemd's C(InvocationID)), time and size of each of O(files), owner and
    mode of those that are directories, the installed packages (the time of C(/var/lib/dpkg/status)), and O(about).
  - Keeps the record in C(/run/kilonova), so it is gone after a boot.
  - Never reports a change, since only this module uses the record.
author: The Kilonova authors (@kilonova)
options:
  units:
    description: Units that must be active and must not have been restarted.
    type: list
    elements: str
    default: []
  files:
    description: Files that must not have been written. One that did not exist must still not exist.
    type: list
    elements: path
    default: []
  about:
    description: Anything else that must be the same, such as the image and flavor of the test guest.
    type: dict
    default: {}
  seen:
    description: >-
      Record that a guest ran on the compute in this state. Takes RV(compute) of a call before the guest was booted, so
      that later changes do not count as verified.
    type: dict
attributes:
  check_mode:
    support: full
    description: Records nothing.
  diff_mode:
    support: none
    description: There is nothing to show.
notes:
  - C(InvocationID) is described in systemd.exec(5) and shown by systemctl(1) of systemd 232 and later.
"""

EXAMPLES = r"""
- name: Detect changes since the last test guest
  compute_verification:
    units: [nova-compute.service, ovn-controller.service]
    files: [/etc/nova/nova.conf]
  register: found

- name: Boot a test guest
  ansible.builtin.include_tasks: probe.yml
  when: not found.verified

- name: Record that it ran
  compute_verification:
    seen: "{{ found.compute }}"
  when: not found.verified
"""

RETURN = r"""
verified:
  description: Whether a guest ran and nothing changed since.
  returned: without O(seen)
  type: bool
since:
  description: When the guest ran, in seconds since 1970; 0 without a record.
  returned: without O(seen)
  type: float
different:
  description: What changed since; empty without a record.
  returned: without O(seen)
  type: list
  elements: str
  sample: [unit nova-compute.service, packages]
compute:
  description: The current state, for O(seen).
  returned: without O(seen)
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.compute_verification import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
