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

# Fails where the certificate has another name.
GREET = """
import socket, ssl
address, authority, name = {arguments!r}
plain = socket.create_connection((address, 5000), timeout=10)
ssl.create_default_context(cafile=authority).wrap_socket(plain, server_hostname=name).close()
"""


@pytest.fixture(scope="module")
def sites(hosts_sites: tuple[Any, ...]) -> list[Any]:
    found = [site for site in hosts_sites if "controller" in site.groups]
    if len(found) < 2:
        pytest.skip("needs several controllers")
    return found


def test_services_reach_the_apis_by_their_own_haproxy(sites: list[Any]) -> None:
    """By whatever controller the address is held, which may vanish while they wait for an answer."""
    for site in sites:
        script = GREET.format(arguments=(site.api_address, site.authority, site.name))
        site.connect().check_output("runuser -u nobody -- /usr/bin/python3 -c %s", script)


def test_root_reaches_the_holder_of_the_address(sites: list[Any]) -> None:
    holders = [site for site in sites if site.connect().check_output("ip -o address show to %s/32", site.api_address)]
    assert len(holders) == 1
    for site in sites:
        script = GREET.format(arguments=(site.api_address, site.authority, holders[0].name))
        site.connect().check_output("/usr/bin/python3 -c %s", script)


def test_a_revoked_token_is_refused_by_all(
    sites: list[Any], on_cloud: Callable[..., Any], run_python_of: Callable[..., Any]
) -> None:
    controllers = [run_python_of(site.connect()) for site in sites]
    token = on_cloud("print(json.dumps(cloud.auth_token))")
    wanted = {"auth": {"identity": {"methods": ["token"], "token": {"id": token}}}}
    status, issued = controllers[0](ASK, "POST", "/auth/tokens", wanted, {})
    assert status == 201
    both = {"X-Auth-Token": token, "X-Subject-Token": issued}
    assert [ask(ASK, "GET", "/auth/tokens", None, both)[0] for ask in controllers] == [200] * len(controllers)
    assert controllers[0](ASK, "DELETE", "/auth/tokens", None, both)[0] == 204
    assert [ask(ASK, "GET", "/auth/tokens", None, both)[0] for ask in controllers] == [404] * len(controllers)
