#!/usr/bin/python3
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: drift_report
short_description: Fail on hosts that a dry run found to differ from the inventory
version_added: "0.1.0"
description:
  - Ends a playbook that is run with C(--check). Judges what the callback plugin P(changes#callback) recorded of all
    earlier tasks for each host. That plugin prints the report at the end of the run.
  - Works through its action plugin, on the computer that runs Ansible.
attributes:
  check_mode:
    description: Made for it. Never changes anything.
    support: full
  diff_mode:
    support: none
notes:
  - A host fails if something differs or needs the operator (C(needs_you) in a result), so that C(ansible-playbook)
    ends with exit code 2.
  - A host counts as unreachable if something on it could not be looked at (C(not_looked_at) in a result, an ignored
    failure), so that C(ansible-playbook) ends with exit code 4, as it does if a host does not answer.
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Report drift
  drift_report:
"""

RETURN = r"""
msg:
  description: Number of differences, of things that need the operator, and of parts that could not be looked at.
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
