#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Converge Keystone's key repositories."""

from __future__ import annotations

DOCUMENTATION = r"""
module: keystone_keys
short_description: Converge Keystone's repositories of Fernet and credential keys
version_added: "0.1.0"
description:
  - Derives the keys from a secret, and those for tokens from the time as well. All controllers have the same keys
    without copying them, and a program on each of them (module_utils/kilonova/cloud/derived_keys.py) goes on with it by
    a timer.
  - The key of a period signs tokens. Those of the next period, of periods whose tokens may still be valid, and of
    O(other_seeds) are accepted.
  - A key that is not wanted any more stays for as long as a token that it signed may be valid, also one that was not
    derived. Keys for credentials stay for ever.
  - Corrects owner and mode of repositories and keys that others may read.
options:
  seed:
    description: Secret that the keys are derived from.
    type: str
    required: true
  other_seeds:
    description: Further secrets, whose keys are accepted while hosts change from one to another.
    type: list
    elements: str
    default: []
  token_repository:
    description: Directory of the keys for tokens.
    type: path
    default: /etc/keystone/fernet-keys
  credential_repository:
    description: Directory of the keys for stored credentials.
    type: path
    default: /etc/keystone/credential-keys
  period_days:
    description: Days for which a key signs tokens, 1, 7 or 28.
    type: int
    required: true
  keep_seconds:
    description: Seconds for which a token may be accepted after it was made.
    type: int
    required: true
  encrypts:
    description: Whether this host is to encrypt stored credentials anew where their key changed.
    type: bool
    default: false
  encrypted:
    description: Whether that is done.
    type: bool
    default: false
  owner:
    description: User who owns the directories and keys, together with the user's primary group. Nobody else can read
      them.
    type: str
    default: keystone
attributes:
  check_mode:
    support: full
    description: Reports which keys would be created and removed.
  diff_mode:
    support: none
notes:
  - Fails when the user does not exist, because then Keystone is not installed.
  - "Names of keys: https://docs.openstack.org/keystone/2025.1/admin/fernet-token-faq.html"
  - "Format of a key: https://github.com/fernet/spec/blob/master/Spec.md#key-format"
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Write the keys for tokens and credentials
  keystone_keys:
    seed: "{{ keystone_fernet_seed }}"
    period_days: 7
    keep_seconds: 262800
"""

RETURN = r"""
made:
  description: Files of the keys that were written, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [/etc/keystone/fernet-keys/1000, /etc/keystone/fernet-keys/0]
removed:
  description: Files of the keys that were removed, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [/etc/keystone/fernet-keys/1]
changes:
  description: Repositories and keys whose owner or mode was corrected, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [owner and mode of /etc/keystone/fernet-keys/1]
encrypt:
  description: Whether stored credentials are still to be encrypted with the new key.
  returned: success
  type: bool
  sample: false
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.keystone_keys import ARGUMENT_SPEC, run


def main() -> None:
    """Run the module."""
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
