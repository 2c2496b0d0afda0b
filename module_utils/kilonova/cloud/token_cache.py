# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Tokens of Keystone's that later calls of modules on the same host use again.

Keystone takes a third of a second of a processor to compare a password with its hash, on purpose, and a run compares
about ten. Looking at a token takes it 15 ms and says as much: Keystone revokes the tokens of a user whose password
changes or who is disabled, so that one which it still takes came from the password that still counts. Whoever can read
these files can read the clouds file with the administrator's password, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from typing import Any

from ansible.module_utils.kilonova.system.locks import DIRECTORY

TOKENS = os.path.join(DIRECTORY, "tokens")


class TokenFile:
    """A file with the token of one login. Its name follows from all of the login, its password included."""

    def __init__(self, login: str) -> None:
        self.path = os.path.join(TOKENS, hashlib.sha256(login.encode()).hexdigest())

    def read(self) -> str:
        """The token; empty where there is none."""
        try:
            with open(self.path, encoding="ascii") as stream:
                return stream.read()
        except (OSError, ValueError):
            return ""

    def write(self, token: str) -> None:
        """Keep a token. What cannot be written is not kept, such as by a user other than root."""
        directory = os.path.dirname(self.path)
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(directory), mode=0o711, exist_ok=True)
            os.makedirs(directory, mode=0o700, exist_ok=True)
            # Only its owner reads what mkstemp() makes. Replaced in one step, for calls at the same time.
            descriptor, path = tempfile.mkstemp(dir=directory)
            with open(descriptor, "w", encoding="ascii") as stream:
                stream.write(token)
            os.replace(path, self.path)


def identity_url(auth_url: str) -> str:
    """The address of Keystone's API v3, of which the clouds file may give the root only."""
    base = auth_url.rstrip("/")
    return base if base.endswith("/v3") else f"{base}/v3"


def look_at(session: Any, auth_url: str, token: str) -> dict[str, Any] | None:
    """What Keystone says of a token, as it would after a login, with the present catalog; None when it is refused.

    Expired, revoked, or of another Keystone are all the same: it takes a login. Raises keystoneauth's exceptions where
    Keystone does not answer.
    """
    from keystoneauth1.exceptions import HTTPClientError

    headers = {"X-Auth-Token": token, "X-Subject-Token": token, "Accept": "application/json"}
    try:
        answer = session.get(f"{identity_url(auth_url)}/auth/tokens", headers=headers, authenticated=False)
        return dict(answer.json())
    except (HTTPClientError, ValueError):
        return None


class KeptLogin:
    """The token of a session's own login."""

    def __init__(self, session: Any, auth_url: str) -> None:
        self.session = session
        self.auth_url = auth_url
        # None with a way to log in that has no name, such as a token.
        login = session.auth.get_cache_id()
        self.file = TokenFile(login) if login else None

    def use(self) -> bool:
        """Let the session use the token, if there is one that Keystone still takes. Raises as look_at() does."""
        token = self.file.read() if self.file else ""
        body = look_at(self.session, self.auth_url, token) if token else None
        if body:
            self.session.auth.set_auth_state(json.dumps({"auth_token": token, "body": body}))
        return bool(body)

    def keep(self) -> None:
        """Keep the session's token."""
        if self.file:
            self.file.write(str(self.session.get_token()))
