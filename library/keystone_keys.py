#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Create Keystone's key repositories."""

from __future__ import annotations

DOCUMENTATION = r"""
module: keystone_keys
short_description: Create Keystone's repositories of Fernet and credential keys
version_added: "0.1.0"
description:
  - Creates a staged key (C(0)) and a primary key (C(1)) in each empty repository, as C(keystone-manage fernet_setup)
    and C(credential_setup) do, but without the time that it takes to start C(keystone-manage).
  - Never changes or removes an existing key. Without the old keys, all tokens are refused and all stored credentials
    are lost.
  - Adds the primary key to a repository that holds only a staged key because an earlier run was interrupted, and a
    staged key to one that has none, which could not be rotated.
  - Corrects owner and mode of repositories and keys that others may read.
options:
  repositories:
    description: Directories of the repositories.
    type: list
    elements: path
    required: true
  owner:
    description: User who owns the directories and keys, together with the user's primary group. Nobody else can read
      them.
    type: str
    default: keystone
attributes:
  check_mode:
    support: full
    description: Reports which keys would be created.
  diff_mode:
    support: none
notes:
  - Fails when the user does not exist, because then Keystone is not installed.
  - "Names of keys: https://docs.openstack.org/keystone/2025.1/admin/fernet-token-faq.html"
  - "Format of a key: https://github.com/fernet/spec/blob/master/Spec.md#key-format"
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Create the token and credential keys
  keystone_keys:
    repositories: [/etc/keystone/fernet-keys, /etc/keystone/credential-keys]
"""

RETURN = r"""
made:
  description: Files of the keys that were created, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [/etc/keystone/fernet-keys/0, /etc/keystone/fernet-keys/1]
changes:
  description: Repositories and keys whose owner or mode was corrected, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [owner and mode of /etc/keystone/fernet-keys/1]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.keystone_keys import ARGUMENT_SPEC, run


def main() -> None:
    """Run the module."""
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
