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
options:
  needs_you:
    description:
      - What needs the operator and follows from the results of several hosts, which no module of one host finds.
      - Where it is given, it is recorded for the report, and nothing is judged yet.
    type: list
    elements: str
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
- name: Check that one controller holds each address
  drift_report:
    needs_you: ["192.0.2.10: held by ctl1, ctl2, and it has to be held by one"]

- name: Report drift
  drift_report:
"""

RETURN = r"""
needs_you:
  description: What was given.
  returned: when O(needs_you) is given
  type: list
  elements: str
msg:
  description: Number of differences, of things that need the operator, and of parts that could not be looked at.
  returned: when O(needs_you) is not given
  type: str
  sample: 3 differences from the inventory on 1 host. site.yml with the same inventory corrects what differs.
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(argument_spec={"needs_you": {"type": "list", "elements": "str"}}, supports_check_mode=True)
    module.fail_json(msg="drift_report works through its action plugin (plugins/action).")


if __name__ == "__main__":
    main()
