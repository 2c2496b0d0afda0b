#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: galera_connections
short_description: End connections to a member of a Galera cluster that gets no new ones
version_added: "0.1.0"
description:
  - For a member that HAProxy leads no new connections to. Services keep theirs for up to an hour. The module ends those
    over TCP that are between two transactions; a service finds that out before it uses one, and connects to another
    member.
  - Goes on until none is left, or the time is over.
author: The Kilonova authors (@kilonova)
options:
  timeout:
    description: Seconds to wait for connections that are in use.
    type: float
    default: 15
  socket:
    description: Socket of MariaDB, on which the system user root is its administrator.
    type: path
    default: /run/mysqld/mysqld.sock
attributes:
  check_mode:
    support: full
    description: Counts connections.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Let services connect to another member
  galera_connections:
    timeout: 30
"""

RETURN = r"""
ended:
  description: How many connections the module ended.
  returned: success
  type: int
left:
  description: How many are left.
  returned: success
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.database.galera_connections import ARGUMENT_SPEC, run


def main() -> None:
    """Run the module."""
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
