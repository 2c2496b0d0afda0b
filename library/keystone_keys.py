#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Make Keystone's key repositories once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: keystone_keys
short_description: Make Keystone's repositories of keys for tokens and credentials, once
version_added: "0.1.0"
description:
  - Gives each repository that has none a staged key (C(0)) and a primary one (C(1)), as C(keystone-manage
    fernet_setup) and C(credential_setup) do, without starting Keystone's code for it.
  - A key that exists is never changed or removed. Without the old keys every token is refused, and every stored
    credential is lost. A repository that an interruption left with its staged key only gets its primary one.
options:
  repositories:
    description: Directories of the repositories.
    type: list
    elements: path
    required: true
  owner:
    description: User and group that own directories and keys, readable by no one else.
    type: str
    default: keystone
attributes:
  check_mode:
    support: full
    description: Predicts which keys would be made.
  diff_mode:
    support: none
notes:
  - Fails when the user does not exist, which means that Keystone is not installed.
  - "Names of keys: https://docs.openstack.org/keystone/2025.1/admin/fernet-token-faq.html"
  - "Format of a key: https://github.com/fernet/spec/blob/master/Spec.md#key-format"
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Make the keys for tokens and credentials
  keystone_keys:
    repositories: [/etc/keystone/fernet-keys, /etc/keystone/credential-keys]
"""

RETURN = r"""
made:
  description: Files of the keys that were made.
  returned: success
  type: list
  elements: str
  sample: [/etc/keystone/fernet-keys/0, /etc/keystone/fernet-keys/1]
"""

import base64
import os
import pwd
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

STAGED, FIRST_PRIMARY = "0", "1"
KEY_BYTES = 32


def missing_keys(names: list[str]) -> list[str]:
    """The keys to make in a repository that holds these files."""
    keys = [name for name in names if name.isdigit()]
    if not keys:
        return [STAGED, FIRST_PRIMARY]
    return [FIRST_PRIMARY] if keys == [STAGED] else []


def make_key(path: Path, uid: int, gid: int) -> None:
    """Write a new key so that it is never half there. The name while it is written is not a number."""
    temporary = path.with_name(f"{path.name}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as stream:
        os.fchown(handle, uid, gid)
        stream.write(base64.urlsafe_b64encode(os.urandom(KEY_BYTES)))
        stream.flush()
        os.fsync(handle)
    temporary.rename(path)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "repositories": {"type": "list", "elements": "path", "required": True},
            "owner": {"type": "str", "default": "keystone"},
        },
        supports_check_mode=True,
    )
    repositories = [Path(path) for path in module.params["repositories"]]
    made = [
        path / name
        for path in repositories
        for name in missing_keys([entry.name for entry in path.iterdir()] if path.is_dir() else [])
    ]
    if made and not module.check_mode:
        try:
            owner = pwd.getpwnam(module.params["owner"])
        except KeyError:
            module.fail_json(msg=f"The user {module.params['owner']} does not exist; is Keystone installed?")
        for key in made:
            if not key.parent.is_dir():
                key.parent.mkdir(mode=0o700)
                os.chown(key.parent, owner.pw_uid, owner.pw_gid)
            make_key(key, owner.pw_uid, owner.pw_gid)
    module.exit_json(changed=bool(made), made=[str(key) for key in made])


if __name__ == "__main__":
    main()
