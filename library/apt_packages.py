#!/usr/bin/python3
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

DOCUMENTATION = r"""
module: apt_packages
short_description: Install packages without starting their daemons
version_added: "0.1.0"
description:
  - Installs missing packages and their dependencies in one apt transaction.
  - Daemons do not start, because they are not configured yet. While apt works, C(/usr/sbin/policy-rc.d) prevents it.
    If the host has a file of that name, it is restored afterwards.
  - May be interrupted at any time. The next call waits for a call that still works, removes the policy file that a
    killed call left, and lets dpkg finish.
  - Byte-compiles Python packages in parallel to dpkg.
  - Reads the package list of dpkg first. If nothing is missing or half installed, it does not start apt and takes no
    lock of dpkg.
options:
  names:
    description:
      - Packages to install. A name that an installed package provides counts as installed.
      - C(NAME=VERSION) asks for a version; it may contain C(*).
    type: list
    elements: str
    required: true
  lists_max_age:
    description:
      - Age in seconds above which package lists are downloaded before an installation.
      - If an installation fails with younger lists, they are downloaded and it is tried once more.
    type: int
    default: 3600
  timeout:
    description: Seconds to wait for another call, and for another program that holds the lock of dpkg.
    type: int
    default: 600
attributes:
  check_mode:
    description: Lets apt simulate the installation if the host has package lists.
    support: full
  diff_mode:
    description: Shows packages with their versions before and after.
    support: full
notes:
  - Does not install recommended packages, and keeps changed configuration files of packages.
  - The message of a failure ends with the last lines of apt.
  - "policy-rc.d: https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt"
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Install the Nova API and its database
  apt_packages:
    names: [nova-api, mariadb-server]
"""

RETURN = r"""
missing:
  description: Those of O(names) that were missing.
  returned: always
  type: list
  elements: str
  sample: [nova-api]
repaired:
  description: What an interrupted call left unfinished, one line each.
  returned: always
  type: list
  elements: str
  sample: ["dpkg had not finished 12 packages"]
lists_updated:
  description: Whether the package lists were downloaded.
  returned: always
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.apt_packages import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
