# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Generate the secrets that an inventory does not have yet, once.

Documented in library/secrets_file.py.
"""

from __future__ import annotations

import os
import secrets
import string
import tempfile
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.vault import VaultLib, is_encrypted
from ansible.plugins.action import ActionBase

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "required": True},
    "names": {"type": "list", "elements": "str", "required": True},
    "length": {"type": "int", "default": 32},
}
ALPHABET = string.ascii_letters + string.digits
HEADER = """\
# Secrets of this cloud, generated once. A line may be replaced by a secret of
# your own; the next run of site.yml gives it to every service. Keep a copy:
# without it nobody can log in. Never commit it unencrypted (ansible-vault).
"""


def generate(length: int) -> str:
    """A random secret."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def load(path: Path, vault: VaultLib) -> tuple[dict[str, Any], bool]:
    """The secrets in the file, and whether it is encrypted."""
    if not path.exists():
        return {}, False
    data = path.read_bytes()
    encrypted = is_encrypted(data)
    if encrypted:
        try:
            data = vault.decrypt(data)
        except AnsibleError as error:
            raise AnsibleActionFail(
                f"{path} is encrypted and cannot be read: {error}. Give the password that it was encrypted with "
                "(--vault-password-file or vault_password_file in ansible.cfg)."
            ) from error
    try:
        content = yaml.safe_load(data) or {}
    except yaml.YAMLError as error:
        # The parser's own message quotes the line, which may be a secret.
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise AnsibleActionFail(
            f"{path} is not plain YAML{line}. Write secrets as 'name: value'. Values that are encrypted one by one "
            f"(!vault) cannot be kept here: encrypt the file as a whole (ansible-vault encrypt {path})."
        ) from None
    if not isinstance(content, dict):
        raise AnsibleActionFail(f"{path} does not hold variables: expected lines like 'name: value'.")
    return content, encrypted


def write(path: Path, text: bytes) -> None:
    """Write the file so that it is never half there and never readable by others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # What a killed run was writing. Its secrets were given to nobody, or the file would be there.
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink(missing_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


class ActionModule(ActionBase):
    """The action; it needs no connection."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Read, add what is missing, write."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        path = Path(arguments["path"])
        vault = VaultLib(secrets=self._loader._vault.secrets)
        content, encrypted = load(path, vault)
        known = set(content) | set(task_vars or {})
        # Copied letter by letter: Ansible's own strings carry tags that the YAML writer cannot represent.
        missing = ["".join(name) for name in arguments["names"] if name not in known]
        mode_wrong = path.exists() and path.stat().st_mode & 0o077
        result |= {"changed": bool(missing or mode_wrong), "generated": missing, "path": str(path)}
        if self._task.check_mode:
            return result
        if missing:
            content |= {name: generate(arguments["length"]) for name in missing}
            text = (HEADER + yaml.safe_dump(content, default_flow_style=False)).encode()
            if encrypted or (not path.exists() and vault.secrets):
                text = vault.encrypt(text)
            write(path, text)
        elif mode_wrong:
            path.chmod(0o600)
        return result
