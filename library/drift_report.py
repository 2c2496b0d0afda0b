#!/usr/bin/python3
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: drift_report
short_description: Fail where a dry run found that hosts differ from the inventory
version_added: "0.1.0"
description:
  - Ends a playbook that is run with C(--check). Judges what every task before it, in all plays and on all hosts, would
    have changed, as the callback plugin P(changes#callback) remembered it; that plugin then lists it.
  - Works through its action plugin, on the computer that runs Ansible.
attributes:
  check_mode:
    description: It is meant for it, and changes nothing.
    support: full
  diff_mode:
    support: none
notes:
  - Fails when there is a difference, or something that could not be looked at (C(not_looked_at) in a result), so that
    C(ansible-playbook) ends with exit code 2.
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Say what differs
  drift_report:
  run_once: true
"""

RETURN = r"""
msg:
  description: How many differences there are on how many hosts. The callback plugin lists them after everything else.
  returned: always
  type: str
  sample: 3 differences from the inventory on 1 host. site.yml with the same inventory corrects what differs.
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    module.fail_json(msg="drift_report works through its action plugin (plugins/action).")


if __name__ == "__main__":
    main()
