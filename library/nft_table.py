#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: nft_table
short_description: Keep one table of nftables as a file says
version_added: "0.1.0"
description:
  - Compares a live table with the one that a file of nft commands defines, and loads the file if they differ. Rules
    that somebody added or flushed by hand are found. Other tables are not touched.
  - To compare, loads the file into an empty network namespace, where nft prints it in the same form as the live table.
author: The Kilonova authors (@kilonova)
options:
  family:
    description: Address family of the table.
    type: str
    choices: [ip, ip6, inet, arp, bridge, netdev]
    default: inet
  name:
    description: Name of the table.
    type: str
    required: true
  file:
    description: Absolute path of the file. It must replace the table, whether it exists or not.
    type: path
    required: true
  state:
    description: V(absent) deletes the table; the file is then not read.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    support: full
    description: If nftables or the file does not exist yet, predicts that the table is loaded.
  diff_mode:
    support: full
    description: Shows the table before and after.
notes:
  - Fails if nft refuses the file, with its message.
  - "Forms of nft: https://netfilter.org/projects/nftables/manpage.html"
"""

EXAMPLES = r"""
- name: Keep the table for SNAT
  nft_table:
    family: ip
    name: kilonova
    file: /etc/kilonova/nat.nft
"""

RETURN = r"""
changes:
  description: The table, if it differed.
  returned: always
  type: list
  elements: str
  sample: ["nftables: table ip kilonova"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.network.nft_table import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
