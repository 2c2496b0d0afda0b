# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Converge Keystone's key repositories.

Documented in library/keystone_keys.py.
"""

from __future__ import annotations

import os
import pwd
import stat
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud import derived_keys

ARGUMENT_SPEC: dict[str, Any] = {
    "seed": {"type": "str", "required": True, "no_log": True},
    "other_seeds": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "token_repository": {"type": "path", "default": "/etc/keystone/fernet-keys"},
    "credential_repository": {"type": "path", "default": "/etc/keystone/credential-keys"},
    "period_days": {"type": "int", "required": True},
    "keep_seconds": {"type": "int", "required": True},
    "encrypts": {"type": "bool", "default": False},
    "encrypted": {"type": "bool", "default": False},
    "owner": {"type": "str", "default": "keystone"},
}
# Of the key that all stored credentials are encrypted with.
MARK = "encrypted-with"
FOR_EVER = -1


def exposed(path: Path, uid: int) -> bool:
    """Return whether somebody else than the owner may read a repository or a key, or the owner is not Keystone."""
    found = path.stat()
    return found.st_uid != uid or bool(stat.S_IMODE(found.st_mode) & 0o077)


def marked(repository: Path) -> str:
    """Return what stands for the key that credentials are encrypted with."""
    try:
        return (repository / MARK).read_text()
    except OSError:
        return ""


def run(module: AnsibleModule) -> None:
    """Write the keys that are wanted, and take those that others may read away from them."""
    params = module.params
    tokens, credentials = (Path(params[f"{kind}_repository"]) for kind in ("token", "credential"))
    now, keep = time.time(), params["keep_seconds"]
    seeds = (params["seed"], params["other_seeds"])
    wanted = {
        tokens: (derived_keys.token_keys(*seeds, params["period_days"], keep, now), keep),
        credentials: (derived_keys.credential_keys(*seeds), FOR_EVER),
    }
    found = {path: derived_keys.read(path) for path in wanted}
    plans = {path: derived_keys.plan(keys, *found[path], kept, now) for path, (keys, kept) in wanted.items()}
    made = [str(path / str(number)) for path, todo in plans.items() for number, _ in todo.write]
    removed = [str(path / str(number)) for path, todo in plans.items() for number in todo.remove]
    mark = derived_keys.digest(wanted[credentials][0].primary)
    # Nothing was encrypted without keys.
    fresh = not found[credentials][0]
    encrypt = params["encrypts"] and not fresh and marked(credentials) != mark
    changed = bool(made or removed or encrypt)
    try:
        owner = pwd.getpwnam(params["owner"])
    except KeyError:
        if not module.check_mode:
            module.fail_json(msg=f"The user {params['owner']} does not exist; is Keystone installed?")
        module.exit_json(changed=changed, made=made, removed=removed, changes=[], encrypt=encrypt)
    there = [
        path
        for one in wanted
        if one.is_dir()
        for path in (one, *(key for key in sorted(one.iterdir()) if key.name.isdigit()))
    ]
    open_paths = [path for path in there if exposed(path, owner.pw_uid)]
    if not module.check_mode:
        for path in open_paths:
            os.chown(path, owner.pw_uid, owner.pw_gid)
            path.chmod(0o700 if path.is_dir() else 0o600)
        for path, (keys, kept) in wanted.items():
            derived_keys.converge(path, keys, kept, owner.pw_uid, owner.pw_gid, now)
        if fresh or params["encrypted"]:
            derived_keys.write(credentials / MARK, mark, owner.pw_uid, owner.pw_gid)
            encrypt = False
    module.exit_json(
        changed=changed or bool(open_paths),
        made=made,
        removed=removed,
        changes=[f"owner and mode of {path}" for path in open_paths],
        encrypt=encrypt,
    )
