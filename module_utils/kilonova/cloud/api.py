# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Make REST calls to the cloud's APIs. A failure names the part of the cloud to blame.

The openstacksdk connection provides authentication, the catalog and version discovery. The requests are written out, so
that each kind of resource needs one request and no release of the SDK changes how fields are mapped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ansible.module_utils.kilonova.system.logs import layer_logs  # noqa: F401 (imported from here by others)

if TYPE_CHECKING:
    from openstack.connection import Connection

# Nova 20 (Train) and later. Gives flavors with extra specs, servers with their flavor inside, remote consoles.
COMPUTE_MICROVERSION = "2.79"
PLACEMENT_MICROVERSION = "1.31"

SERVICE_LAYERS = {
    "identity": "Keystone",
    "image": "Glance",
    "placement": "Placement",
    "compute": "Nova API",
    "network": "Neutron",
    "block_storage": "Cinder",
}
SERVER_ERROR = 500
REFUSED = (401, 403)
# What a load balancer answers while its backend is restarting.
NO_BACKEND = (502, 503)
POLL_SECONDS = 0.5
UNANSWERED = "MessagingTimeout"

Answer = TypeVar("Answer")


class CloudError(Exception):
    """A request failed, or what it answered is not what is needed. ``layer`` is one of the service index."""

    def __init__(self, layer: str, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.layer = layer
        self.status = status

    @property
    def logs_matter(self) -> bool:
        """Return whether the service misbehaved, rather than refused a request and said why."""
        return self.status is None or self.status >= SERVER_ERROR

    @property
    def blinds(self) -> bool:
        """Return whether nothing is known of what was asked for: the service misbehaved or refused the token.

        A service with a wrong password cannot validate tokens and answers 401 to all of them.
        """
        return self.logs_matter or self.status in REFUSED


@dataclass
class CloudApi:
    """Requests by service type. Each failure is a CloudError that names the layer.

    What is only read is read again for ``patience`` seconds while a load balancer has no backend.
    """

    connection: Connection
    patience: float = 4.0

    def get(self, service: str, path: str, **params: Any) -> dict[str, Any]:
        return self._json(service, "GET", path, params=params)

    def post(self, service: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._json(service, "POST", path, json=body)

    def put(self, service: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._json(service, "PUT", path, json=body)

    def delete(self, service: str, path: str) -> None:
        self.request(service, "DELETE", path)

    def listing(self, service: str, path: str, key: str, **params: Any) -> list[dict[str, Any]]:
        """Return all items of a collection, from all pages (Nova and Neutron: ``<key>_links``; Glance: ``next``)."""
        items: list[dict[str, Any]] = []
        seen: set[str] = set()
        answer = self.get(service, path, **params)
        while True:
            items += answer[key]
            following = next_page(answer, key)
            if not following or following in seen:
                return items
            seen.add(following)
            # Only the query of the next page's address is new.
            answer = self.get(service, f"{path.partition('?')[0]}?{urlsplit(following).query}")

    def offers(self, service: str) -> bool:
        """Return whether the catalog has the service."""
        return bool(self.connection.endpoint_for(service.replace("_", "-")))

    def request(self, service: str, method: str, path: str, **arguments: Any) -> Any:
        """Make a request and return the response. CloudError for a status of 400 and above."""
        from keystoneauth1.exceptions import ClientException
        from openstack.exceptions import SDKException

        layer = SERVICE_LAYERS[service]
        version = {"compute": COMPUTE_MICROVERSION, "placement": PLACEMENT_MICROVERSION}.get(service)
        if not arguments.get("params"):
            arguments.pop("params", None)
        if method == "GET":
            arguments["connect_retries"] = 3
        deadline = time.monotonic() + (self.patience if method == "GET" else 0)
        while True:
            try:
                proxy = getattr(self.connection, service)
                response = proxy.request(path, method, microversion=version, raise_exc=False, **arguments)
            except (ClientException, SDKException) as error:
                raise CloudError(layer, f"{method} {path} got no answer: {error}") from error
            if response.status_code < HTTPStatus.BAD_REQUEST:
                return response
            if response.status_code not in NO_BACKEND or time.monotonic() >= deadline:
                raise CloudError(layer, f"{method} {path} got {_refusal(response)}", response.status_code)
            time.sleep(POLL_SECONDS)

    def _json(self, service: str, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        response = self.request(service, method, path, **arguments)
        if not response.content:
            return {}
        try:
            answer = response.json()
        except ValueError as error:
            raise CloudError(
                SERVICE_LAYERS[service], f"{method} {path} answered something that is not JSON: {response.text[:200]!r}"
            ) from error
        if not isinstance(answer, dict):
            raise CloudError(SERVICE_LAYERS[service], f"{method} {path} answered a {type(answer).__name__}, no object")
        return answer


def next_page(answer: dict[str, Any], key: str) -> str | None:
    """Return the address of the next page, None at the end."""
    for link in answer.get(f"{key}_links") or []:
        if link.get("rel") == "next":
            return str(link["href"])
    following = answer.get("next")
    return str(following) if following else None


def server_summary(server: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a server that the project uses."""
    flavor = server.get("flavor") or {}
    image = server.get("image") or {}
    return {
        "id": server["id"],
        "name": server["name"],
        "status": server["status"],
        "fault": (server.get("fault") or {}).get("message", ""),
        "host": server.get("OS-EXT-SRV-ATTR:host") or "",
        "hypervisor": server.get("OS-EXT-SRV-ATTR:hypervisor_hostname") or "",
        "instance_name": server.get("OS-EXT-SRV-ATTR:instance_name") or "",
        "hostname": server.get("OS-EXT-SRV-ATTR:hostname") or "",
        "project_id": server.get("tenant_id", ""),
        "image_id": image.get("id", ""),
        "keypair": server.get("key_name") or "",
        "launched_at": server.get("OS-SRV-USG:launched_at") or "",
        "flavor": {
            "name": flavor.get("original_name", ""),
            "vcpus": flavor.get("vcpus", 0),
            "ram": flavor.get("ram", 0),
            "disk": flavor.get("disk", 0),
        },
        "interfaces": [
            {"network": network, "address": entry["addr"], "mac": entry.get("OS-EXT-IPS-MAC:mac_addr", "")}
            for network, entries in sorted((server.get("addresses") or {}).items())
            for entry in entries
        ],
    }


def answered(call: Callable[[], Answer], timeout: float) -> Answer:
    """Make a call that Nova forwards to a compute, again while the compute does not answer.

    Nova answers 500 after its rpc_response_timeout (60 s) when the compute does not answer, for example right after a
    reboot. The call is repeated for ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return call()
        except CloudError as error:
            if UNANSWERED not in str(error) or time.monotonic() >= deadline:
                raise


def console_log(api: CloudApi, server_id: str, lines: int | None = None) -> str:
    """Return a guest's console log, or its last lines."""
    options = {} if lines is None else {"length": lines}
    answer = api.post("compute", f"/servers/{server_id}/action", {"os-getConsoleOutput": options})
    return str(answer.get("output") or "")


def tail(text: str, lines: int) -> Iterator[str]:
    """Yield the last lines of a text."""
    yield from text.rstrip().splitlines()[-lines:]


def _refusal(response: Any) -> str:
    """Return status and reason of an error, which each service wraps differently."""
    text = ""
    try:
        body: Any = response.json()
    except ValueError:
        body = None
        # Glance answers in HTML; the title repeats the status.
        text = " ".join(re.sub(r"<title>.*?</title>|<[^>]*>", " ", response.text or "", flags=re.S).split())[:300]
    while isinstance(body, dict) and body:
        if isinstance(body.get("message"), str):
            text = body["message"]
            break
        if isinstance(body.get("detail"), str):
            text = body["detail"]
            break
        body = next(iter(body.values()))
        if isinstance(body, list) and body:
            body = body[0]
    return f"{response.status_code}: {text or response.reason}"
