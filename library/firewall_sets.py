#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_sets
short_description: Keep the addresses in sets of a live nftables table and of the files that define it
version_added: "0.1.0"
description:
  - Gives sets exactly these addresses, in the live table and in the files that define it. Everything else in both
    stays.
  - For hosts that a limited run leaves out, when a host comes or goes. Their files are then the same as a run without
    a limit writes.
  - Does nothing where there is neither the table nor a file, as on a host that has no firewall yet.
author: The Kilonova authors (@kilonova)
options:
  table:
    description: Family and name of the table.
    type: str
    required: true
  sets:
    description: Addresses by the name of the set, in the order of the files. Sets that are not there are ignored.
    type: dict
    required: true
  files:
    description: Absolute paths of files that define the table. One that does not exist is ignored.
    type: list
    elements: path
    required: true
attributes:
  check_mode:
    support: full
    description: Predicts the changes.
  diff_mode:
    support: full
    description: Shows the files before and after.
notes:
  - Changes the live sets in one transaction. For sets without intervals, whose elements nft lists one by one.
  - Fails if nft refuses an address, with its message.
"""

EXAMPLES = r"""
- name: Let another host trust the addresses of all computes
  firewall_sets:
    table: inet kilonova_filter
    sets:
      compute: [192.0.2.21, 192.0.2.22]
    files: [/etc/kilonova/firewall.nft]
  delegate_to: ctl1
"""

RETURN = r"""
changes:
  description: Sets and files that differed.
  returned: always
  type: list
  elements: str
  sample: ["nftables: set compute of table inet kilonova_filter", "/etc/kilonova/firewall.nft"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.network.firewall_sets import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
