# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Create Keystone's key repositories."""

from __future__ import annotations

import base64
import os
import pwd
import stat
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
    missing = [] if STAGED in keys else [STAGED]
    # Any other key can be the primary one.
    return missing if set(keys) - {STAGED} else [*missing, FIRST_PRIMARY]


def exposed(path: Path, uid: int) -> bool:
    """Return whether somebody else than the owner may read a repository or a key, or the owner is not Keystone."""
    found = path.stat()
    return found.st_uid != uid or bool(stat.S_IMODE(found.st_mode) & 0o077)


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
    """Create the keys that are missing, and take those that others may read away from them."""
    repositories = [Path(path) for path in module.params["repositories"]]
    present = {path: sorted(path.iterdir()) if path.is_dir() else [] for path in repositories}
    missing = [path / name for path in repositories for name in missing_keys([key.name for key in present[path]])]
    try:
        owner = pwd.getpwnam(module.params["owner"])
    except KeyError:
        if not module.check_mode:
            module.fail_json(msg=f"The user {module.params['owner']} does not exist; is Keystone installed?")
        module.exit_json(changed=bool(missing), made=[str(key) for key in missing], changes=[])
    there = [
        path
        for one in repositories
        if one.is_dir()
        for path in (one, *(key for key in present[one] if key.name.isdigit()))
    ]
    open_paths = [path for path in there if exposed(path, owner.pw_uid)]
    if not module.check_mode:
        for key in missing:
            if not key.parent.is_dir():
                key.parent.mkdir(mode=0o700)
                os.chown(key.parent, owner.pw_uid, owner.pw_gid)
            make_key(key, owner.pw_uid, owner.pw_gid)
        for path in open_paths:
            os.chown(path, owner.pw_uid, owner.pw_gid)
            path.chmod(0o700 if path.is_dir() else 0o600)
    module.exit_json(
        changed=bool(missing or open_paths),
        made=[str(key) for key in missing],
        changes=[f"owner and mode of {path}" for path in open_paths],
    )
