# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Cache of Keystone tokens on this host, so that a module can reuse the login of an earlier one.

Comparing a password with its hash takes Keystone 0.3 s of a CPU, validating a token 15 ms. A valid token proves that
the password is unchanged, because Keystone revokes a user's tokens when the password changes or the user is disabled.

The cache gives nothing away: its files are in memory (/run), only root can read them, and root can also read the
passwords of the same users in clouds.yaml and in the configuration of the services.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import Any

from ansible.module_utils.kilonova.system import atomic_file
from ansible.module_utils.kilonova.system.locks import DIRECTORY

TOKENS = os.path.join(DIRECTORY, "tokens")


def may_cache(module: Any) -> bool:
    """Return whether a module may cache tokens: not in a dry run, but in check mode within a run (service_check)."""
    return bool(getattr(module, "may_cache", not module.check_mode))


class TokenFile:
    """The cached token of one login, in a file that is named after a hash of the login, including the password."""

    def __init__(self, login: str) -> None:
        self.path = os.path.join(TOKENS, hashlib.sha256(login.encode()).hexdigest())

    def read(self) -> str:
        """Return the token; empty if there is none."""
        try:
            with open(self.path, encoding="ascii") as stream:
                return stream.read()
        except (OSError, ValueError):
            return ""

    def write(self, token: str) -> None:
        """Cache a token, if this user can write the file."""
        directory = os.path.dirname(self.path)
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(directory), mode=0o711, exist_ok=True)
            os.makedirs(directory, mode=0o700, exist_ok=True)
            atomic_file.replace(self.path, token)


def identity_url(auth_url: str) -> str:
    """Return the URL of Keystone's API v3; the clouds file may hold the URL without a version."""
    base = auth_url.rstrip("/")
    return base if base.endswith("/v3") else f"{base}/v3"


def validate(session: Any, auth_url: str, token: str) -> dict[str, Any] | None:
    """Validate a token and return Keystone's answer, which is that of a login; None if Keystone refuses the token.

    Raises keystoneauth's exceptions if Keystone does not answer.
    """
    from keystoneauth1.exceptions import HTTPClientError

    headers = {"X-Auth-Token": token, "X-Subject-Token": token, "Accept": "application/json"}
    try:
        answer = session.get(f"{identity_url(auth_url)}/auth/tokens", headers=headers, authenticated=False)
        return dict(answer.json())
    except (HTTPClientError, ValueError):
        return None


class KeptLogin:
    """The cached token for the login of a session."""

    def __init__(self, session: Any, auth_url: str) -> None:
        self.session = session
        self.auth_url = auth_url
        # None for a login that keystoneauth does not cache, such as one by token.
        login = session.auth.get_cache_id()
        self.file = TokenFile(login) if login else None

    def use(self) -> bool:
        """Let the session use the cached token and return whether Keystone accepts it. Raises as validate() does."""
        token = self.file.read() if self.file else ""
        body = validate(self.session, self.auth_url, token) if token else None
        if body:
            self.session.auth.set_auth_state(json.dumps({"auth_token": token, "body": body}))
        return bool(body)

    def keep(self) -> None:
        """Cache the token of the session."""
        if self.file:
            self.file.write(str(self.session.get_token()))
