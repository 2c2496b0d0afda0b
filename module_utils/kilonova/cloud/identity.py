# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A client for the calls of Keystone's identity API v3 that keystone_catalog needs."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.kilonova.cloud.token_cache import TokenFile, identity_url, validate

# keystoneauth repeats a call whose connection was reset, which may create an entry twice.
CONNECT_RETRIES = 3
UNAUTHORIZED = 401
CREATED = 201
NOT_FOUND = 404
BAD_REQUEST = 400


class IdentityError(Exception):
    """An error status, with Keystone's message."""


class IdentityApi:
    """The API at the authentication URL: the identity endpoint in the catalog may be the old address to repair.

    ``keep``: cache tokens on this host. API: https://docs.openstack.org/api-ref/identity/v3/
    """

    def __init__(self, session: Any, auth_url: str, keep: bool = True) -> None:
        self.session = session
        self.keep = keep
        self.url = identity_url(auth_url)

    def list(self, collection: str, **query: str) -> list[dict[str, Any]]:
        """Return all entries of a collection. Raises IdentityError."""
        return list(self._call("GET", f"/{collection}", params=query)[collection])

    def create(self, kind: str, attributes: dict[str, Any]) -> dict[str, Any]:
        """Create one entry and return it. Raises IdentityError."""
        return dict(self._call("POST", f"/{kind}s", json={kind: attributes})[kind])

    def update(self, kind: str, identity: str, attributes: dict[str, Any]) -> dict[str, Any]:
        """Change attributes of one entry. Raises IdentityError."""
        return dict(self._call("PATCH", f"/{kind}s/{identity}", json={kind: attributes})[kind])

    def delete(self, kind: str, identity: str) -> None:
        """Delete one entry, if it exists. Raises IdentityError."""
        self._call("DELETE", f"/{kind}s/{identity}", accept=(NOT_FOUND,))

    def assign(self, project: str, user: str, role: str) -> None:
        """Give a user a role on a project. Raises IdentityError."""
        self._call("PUT", f"/projects/{project}/users/{user}/roles/{role}")

    def revoke(self, path: str) -> None:
        """Remove a role assignment, given by its path, if it exists. Raises IdentityError."""
        self._call("DELETE", path, accept=(NOT_FOUND,))

    def password_is(self, user: str, password: str) -> bool:
        """Return whether a user can log in with a password, without scope. Raises IdentityError."""
        cached = TokenFile(f"{self.url} {user} {password}")
        if (token := cached.read()) and validate(self.session, self.url, token):
            return True
        identity = {"methods": ["password"], "password": {"user": {"id": user, "password": password}}}
        response = self._request(
            "POST", "/auth/tokens", authenticated=False, json={"auth": {"identity": identity, "scope": "unscoped"}}
        )
        if response.status_code not in (CREATED, UNAUTHORIZED):
            raise IdentityError(self._explain("POST", "/auth/tokens", response))
        if self.keep and response.status_code == CREATED:
            cached.write(response.headers["X-Subject-Token"])
        return bool(response.status_code == CREATED)

    def _call(self, method: str, path: str, accept: tuple[int, ...] = (), **options: Any) -> dict[str, Any]:
        response = self._request(method, path, **options)
        if response.status_code >= BAD_REQUEST and response.status_code not in accept:
            raise IdentityError(self._explain(method, path, response))
        return dict(response.json()) if response.content else {}

    def _request(self, method: str, path: str, **options: Any) -> Any:
        options.setdefault("authenticated", True)
        return self.session.request(
            self.url + path,
            method,
            raise_exc=False,
            connect_retries=CONNECT_RETRIES,
            headers={"Accept": "application/json"},
            **options,
        )

    def _explain(self, method: str, path: str, response: Any) -> str:
        try:
            message = response.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = response.text[:500]
        return f"{method} {self.url}{path} answered {response.status_code}: {message}"
