# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Create Keystone's key repositories."""

from __future__ import annotations

import base64
import os
import pwd
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

ARGUMENT_SPEC: dict[str, Any] = {
    "repositories": {"type": "list", "elements": "path", "required": True},
    "owner": {"type": "str", "default": "keystone"},
}
STAGED, FIRST_PRIMARY = "0", "1"
KEY_BYTES = 32


def missing_keys(names: list[str]) -> list[str]:
    """Return the keys to create in a repository that holds these files."""
    keys = [name for name in names if name.isdigit()]
    if not keys:
        return [STAGED, FIRST_PRIMARY]
    return [FIRST_PRIMARY] if keys == [STAGED] else []


def make_key(path: Path, uid: int, gid: int) -> None:
    """Write a new key atomically."""
    # Keystone ignores files whose names are not numbers.
    temporary = path.with_name(f"{path.name}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as stream:
        os.fchown(handle, uid, gid)
        stream.write(base64.urlsafe_b64encode(os.urandom(KEY_BYTES)))
        stream.flush()
        os.fsync(handle)
    temporary.rename(path)


def run(module: AnsibleModule) -> None:
    """Create the keys that are missing."""
    missing = [
        path / name
        for path in map(Path, module.params["repositories"])
        for name in missing_keys([entry.name for entry in path.iterdir()] if path.is_dir() else [])
    ]
    if missing and not module.check_mode:
        try:
            owner = pwd.getpwnam(module.params["owner"])
        except KeyError:
            module.fail_json(msg=f"The user {module.params['owner']} does not exist; is Keystone installed?")
        for key in missing:
            if not key.parent.is_dir():
                key.parent.mkdir(mode=0o700)
                os.chown(key.parent, owner.pw_uid, owner.pw_gid)
            make_key(key, owner.pw_uid, owner.pw_gid)
    module.exit_json(changed=bool(missing), made=[str(key) for key in missing])
