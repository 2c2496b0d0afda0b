# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""REST calls to the cloud's APIs over an openstacksdk connection, and whom to blame when one fails.

The connection gives authentication, the catalog and version discovery. The requests themselves are written out,
so that a run needs one request per kind of thing and does not depend on how a release of the SDK maps fields.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ansible.module_utils.kilonova.system.logs import layer_logs  # noqa: F401 (imported from here by others)

if TYPE_CHECKING:
    from openstack.connection import Connection

# Nova 20 (Train) and later. Gives flavors with extra specs, servers with their flavor inside, remote consoles.
COMPUTE_MICROVERSION = "2.79"
PLACEMENT_MICROVERSION = "1.30"

SERVICE_LAYERS = {
    "identity": "Keystone",
    "image": "Glance",
    "placement": "Placement",
    "compute": "Nova API",
    "network": "Neutron",
}
SERVER_ERROR = 500
REFUSED = (401, 403)
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
        """Whether the service misbehaved, rather than refused a request for a reason that its answer gives."""
        return self.status is None or self.status >= SERVER_ERROR

    @property
    def blinds(self) -> bool:
        """Whether it says nothing of what was asked for: the service misbehaved, or refused who asked.

        A service whose own password is not the one in Keystone cannot have a token validated, and answers 401 to all.
        """
        return self.logs_matter or self.status in REFUSED


@dataclass
class CloudApi:
    """GET, POST and so on, by service type. Every failure is a CloudError that names the layer."""

    connection: Connection

    def get(self, service: str, path: str, **params: Any) -> dict[str, Any]:
        return self._json(service, "GET", path, params=params)

    def post(self, service: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._json(service, "POST", path, json=body)

    def put(self, service: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._json(service, "PUT", path, json=body)

    def delete(self, service: str, path: str) -> None:
        self.request(service, "DELETE", path)

    def listing(self, service: str, path: str, key: str, **params: Any) -> list[dict[str, Any]]:
        """All items of a collection, page after page (Nova and Neutron: ``<key>_links``; Glance: ``next``)."""
        items: list[dict[str, Any]] = []
        seen: set[str] = set()
        answer = self.get(service, path, **params)
        while True:
            items += answer[key]
            following = next_page(answer, key)
            if not following or following in seen:
                return items
            seen.add(following)
            # The next page's address repeats the service's own path; only its query is new.
            answer = self.get(service, f"{path.partition('?')[0]}?{urlsplit(following).query}")

    def request(self, service: str, method: str, path: str, **arguments: Any) -> Any:
        """One request; returns the response object. CloudError for any status of 400 and above."""
        from keystoneauth1.exceptions import ClientException
        from openstack.exceptions import SDKException

        layer = SERVICE_LAYERS[service]
        version = {"compute": COMPUTE_MICROVERSION, "placement": PLACEMENT_MICROVERSION}.get(service)
        if not arguments.get("params"):
            arguments.pop("params", None)
        if method == "GET":
            # Reading again does no harm; a load balancer without a backend for a moment answers 503.
            arguments |= {"connect_retries": 3, "status_code_retries": 3, "retriable_status_codes": {502, 503}}
        try:
            proxy = getattr(self.connection, service)
            response = proxy.request(path, method, microversion=version, raise_exc=False, **arguments)
        except (ClientException, SDKException) as error:
            raise CloudError(layer, f"{method} {path} got no answer: {error}") from error
        if response.status_code >= 400:
            raise CloudError(layer, f"{method} {path} got {_refusal(response)}", response.status_code)
        return response

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
    """The address of a listing's next page, None at its end."""
    for link in answer.get(f"{key}_links") or []:
        if link.get("rel") == "next":
            return str(link["href"])
    following = answer.get("next")
    return str(following) if following else None


def server_summary(server: dict[str, Any]) -> dict[str, Any]:
    """What the project needs of Nova's answer about a server."""
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
    """What a call of Nova's API answers that has to ask a compute.

    Nova answers 500 after its rpc_response_timeout (60 s) where the compute does not answer, as was seen right after a
    reboot: presumably it had no queue yet, so that the call was lost. The call is then made again, for as long as
    ``timeout`` seconds are not over.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return call()
        except CloudError as error:
            if UNANSWERED not in str(error) or time.monotonic() >= deadline:
                raise


def console_log(api: CloudApi, server_id: str, lines: int | None = None) -> str:
    """The guest's console log as Nova keeps it, whole or its last lines."""
    options = {} if lines is None else {"length": lines}
    answer = api.post("compute", f"/servers/{server_id}/action", {"os-getConsoleOutput": options})
    return str(answer.get("output") or "")


def tail(text: str, lines: int) -> Iterator[str]:
    """The last lines of a text, for the end of a message."""
    yield from text.rstrip().splitlines()[-lines:]


def _refusal(response: Any) -> str:
    """Status and reason of an error, taken out of the shapes that the services wrap it in."""
    text = ""
    try:
        body: Any = response.json()
    except ValueError:
        body = None
        # Glance answers in HTML whose title repeats the status.
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
