# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What one of several controllers does counts on all at once. Needs several controllers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

# Asks the Keystone of one host, not the one that HAProxy would choose.
ASK = """
import http.client
method, path, body, headers = ARGUMENTS
connection = http.client.HTTPConnection("127.0.0.1", 5000, timeout=60)
connection.request(method, f"/v3{path}", body and json.dumps(body), {"Content-Type": "application/json", **headers})
answer = connection.getresponse()
answer.read()
print(json.dumps([answer.status, answer.getheader("X-Subject-Token")]))
"""


def test_a_revoked_token_is_refused_by_all(
    hosts_sites: tuple[Any, ...], on_cloud: Callable[..., Any], run_python_of: Callable[..., Any]
) -> None:
    controllers = [run_python_of(site.connect()) for site in hosts_sites if "controller" in site.groups]
    if len(controllers) < 2:
        pytest.skip("needs several controllers")
    token = on_cloud("print(json.dumps(cloud.auth_token))")
    wanted = {"auth": {"identity": {"methods": ["token"], "token": {"id": token}}}}
    status, issued = controllers[0](ASK, "POST", "/auth/tokens", wanted, {})
    assert status == 201
    both = {"X-Auth-Token": token, "X-Subject-Token": issued}
    assert [ask(ASK, "GET", "/auth/tokens", None, both)[0] for ask in controllers] == [200] * len(controllers)
    assert controllers[0](ASK, "DELETE", "/auth/tokens", None, both)[0] == 204
    assert [ask(ASK, "GET", "/auth/tokens", None, both)[0] for ask in controllers] == [404] * len(controllers)
