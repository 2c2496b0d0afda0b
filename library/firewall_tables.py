#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_tables
short_description: Load tables of nftables, with automatic rollback
version_added: "0.1.0"
description:
  - Compares live tables with those that files of nft commands define, and loads the files if they differ. Rules that
    somebody added or flushed by hand are found. Other tables are not touched.
  - The host returns to the tables that were confirmed last unless these are confirmed in time. The action plugin of the
    same name confirms them over a new connection; in a playbook, all of that is one task. A copy of confirmed files is
    in C(/var/lib/kilonova/firewall), for a unit that loads them at boot.
  - To compare, loads the files into an empty network namespace, where nft prints them in the same form as live tables.
author: The Kilonova authors (@kilonova)
options:
  state:
    description:
      - V(present) loads the files where tables differ, with the rollback armed.
      - V(absent) deletes the tables and the copies.
      - V(confirmed) accepts tables that were loaded; used by the action plugin.
      - V(inspected) returns the state of a change; used by the action plugin.
    type: str
    choices: [present, absent, confirmed, inspected]
    default: present
  files:
    description: Files of nft commands. Each must replace its tables, whether they exist or not.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path of the file. Not read with O(state=absent).
        type: path
        required: true
      tables:
        description: Tables that it defines, as family and name.
        type: list
        elements: str
        required: true
      device:
        description: Network device that its tables belong to. They are not loaded where the host has no such device.
        type: str
  rollback_seconds:
    description: Seconds until tables that are not confirmed are replaced by those before.
    type: int
    default: 60
  token:
    description: The change to confirm; returned by O(state=present).
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: If nftables or a file does not exist yet, predicts that the tables are loaded.
  diff_mode:
    support: full
    description: Shows each table before and after.
notes:
  - Needs root and systemd on the host. Fails before any change if nft refuses a file, with its message.
  - "Forms of nft: https://netfilter.org/projects/nftables/manpage.html"
"""

EXAMPLES = r"""
- name: Load the firewall
  firewall_tables:
    files:
      - path: /etc/kilonova/firewall.nft
        tables: [inet kilonova_filter, arp kilonova_filter]
"""

RETURN = r"""
changes:
  description: Tables that differ, and other reasons for a change.
  returned: with state present and absent
  type: list
  elements: str
  sample: ["nftables: table inet kilonova_filter"]
token:
  description: Identifies the change to confirm.
  returned: with state present, when something changed
  type: str
status:
  description: State of the last change. C(undone) is true where the host returned to its former tables.
  returned: with state inspected and confirmed
  type: dict
  sample: {token: a1b2c3, armed: true, undone: false}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.network.firewall_tables import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
