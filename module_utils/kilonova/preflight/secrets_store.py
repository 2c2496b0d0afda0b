# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The file of secrets on the computer that runs Ansible."""

from __future__ import annotations

import secrets
import string
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.kilonova.system import atomic_file
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, is_encrypted

ALPHABET = string.ascii_letters + string.digits
HEADER = """\
# Secrets of this cloud, generated once. A line may be replaced by a secret of
# your own; the next run of site.yml gives it to every service. Keep a copy:
# without it nobody can log in. Never commit it unencrypted (ansible-vault).
"""


def generate(length: int) -> str:
    """Return a random secret."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def vault_of(loader: DataLoader) -> VaultLib:
    """Return the vault passwords of the run."""
    # Ansible has no public way to encrypt with them, which a new file needs.
    return VaultLib(secrets=loader._vault.secrets)


def load(path: Path, vault: VaultLib) -> tuple[dict[str, Any], bool]:
    """Return the secrets in the file, and whether it is encrypted."""
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
        # The parser quotes the line in its message, which may be a secret.
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise AnsibleActionFail(
            f"{path} is not plain YAML{line}. Write secrets as 'name: value'. Values that are encrypted one by one "
            f"(!vault) cannot be kept here: encrypt the file as a whole (ansible-vault encrypt {path})."
        ) from None
    if not isinstance(content, dict):
        raise AnsibleActionFail(f"{path} does not hold variables: expected lines like 'name: value'.")
    return content, encrypted


def write(path: Path, content: dict[str, Any], vault: VaultLib, encrypted: bool) -> None:
    """Replace the file at once, readable by its owner only."""
    text = (HEADER + yaml.safe_dump(content, default_flow_style=False)).encode()
    if encrypted or (not path.exists() and vault.secrets):
        text = vault.encrypt(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Left by a killed run, which had not used these secrets yet.
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink(missing_ok=True)
    atomic_file.replace(path, text)
