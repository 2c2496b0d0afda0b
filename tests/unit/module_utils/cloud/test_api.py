# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Requests to an HTTP server in the test, and the messages of their failures."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.kilonova.cloud.api import (
    SERVICE_LAYERS,
    CloudApi,
    CloudError,
    answered,
    server_summary,
)
from keystoneauth1 import adapter, noauth, session

Answers = dict[str, list[tuple[int, Any]]]


@pytest.fixture
def cloud() -> Iterator[Callable[[Answers], CloudApi]]:
    """Call with answers by path. Each path gives its answers in order and repeats the last one."""
    answers: Answers = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            queue = answers[self.path]
            status, body = queue.pop(0) if len(queue) > 1 else queue[0]
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    proxy = adapter.Adapter(
        session.Session(auth=noauth.NoAuth()),
        endpoint_override=f"http://127.0.0.1:{server.server_port}",
        service_type="compute",
        status_code_retry_delay=0.01,
    )

    def make(wanted: Answers) -> CloudApi:
        answers.update(wanted)
        return CloudApi(SimpleNamespace(compute=proxy, image=proxy, network=proxy))  # type: ignore[arg-type]

    yield make
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_service_has_a_layer(layers: set[str]) -> None:
    assert set(SERVICE_LAYERS.values()) <= layers


def test_listing_follows_the_pages_of_nova(cloud: Callable[[Answers], CloudApi]) -> None:
    following = [{"rel": "next", "href": "http://elsewhere/v2.1/flavors/detail?marker=a"}]
    api = cloud(
        {
            "/flavors/detail?is_public=none": [(200, {"flavors": [{"id": "a"}], "flavors_links": following})],
            "/flavors/detail?marker=a": [(200, {"flavors": [{"id": "b"}]})],
        }
    )
    assert api.listing("compute", "/flavors/detail", "flavors", is_public="none") == [{"id": "a"}, {"id": "b"}]


def test_listing_follows_the_pages_of_glance(cloud: Callable[[Answers], CloudApi]) -> None:
    api = cloud(
        {
            "/images": [(200, {"images": [{"id": "a"}], "next": "/v2/images?marker=a"})],
            "/images?marker=a": [(200, {"images": [{"id": "b"}]})],
        }
    )
    assert [image["id"] for image in api.listing("image", "/images", "images")] == ["a", "b"]


def test_a_restarting_backend_is_tolerated(cloud: Callable[[Answers], CloudApi]) -> None:
    api = cloud({"/servers": [(503, b"no server is available"), (200, {"servers": []})]})
    assert api.listing("compute", "/servers", "servers") == []


def test_a_backend_that_stays_away_is_an_error(cloud: Callable[[Answers], CloudApi]) -> None:
    api = cloud({"/servers": [(502, b"")] * 9})
    api.patience = 1.2
    with pytest.raises(CloudError, match="GET /servers got 502"):
        api.listing("compute", "/servers", "servers")


@pytest.mark.parametrize(
    ("status", "body", "text", "logs"),
    [
        (409, {"conflictingRequest": {"code": 409, "message": "Flavor exists."}}, "409: Flavor exists.", False),
        (400, {"NeutronError": {"type": "X", "message": "Invalid mtu.", "detail": ""}}, "400: Invalid mtu.", False),
        (404, {"errors": [{"status": 404, "detail": "No provider."}]}, "404: No provider.", False),
        (500, b"<html>Internal  Server\nError</html>", "500: Internal Server Error", True),
        (401, b"<html><head><title>401 Unauthorized</title></head><body><h1>401 Unauthorized</h1> Bad token. </body>",
         "401: 401 Unauthorized Bad token.", False),
        (502, b"", "502: Bad Gateway", True),
    ],
)  # fmt: skip
def test_refusals(cloud: Callable[[Answers], CloudApi], status: int, body: Any, text: str, logs: bool) -> None:
    api = cloud({"/ports": [(status, body)]})
    with pytest.raises(CloudError) as failure:
        api.post("network", "/ports", {})
    assert str(failure.value) == f"POST /ports got {text}"
    assert failure.value.layer == "Neutron"
    assert failure.value.status == status
    assert failure.value.logs_matter is logs


def test_a_silent_compute_is_asked_again() -> None:
    errors = [CloudError("Nova API", "500: <class 'oslo_messaging.exceptions.MessagingTimeout'>", 500)]

    def call() -> str:
        if errors:
            raise errors.pop()
        return "log"

    assert answered(call, 60) == "log"
    errors.append(CloudError("Nova API", "500: <class 'oslo_messaging.exceptions.MessagingTimeout'>", 500))
    with pytest.raises(CloudError, match="MessagingTimeout"):
        answered(call, 0)
    errors.append(CloudError("Nova API", "409: the server is paused", 409))
    with pytest.raises(CloudError, match="paused"):
        answered(call, 60)


@pytest.mark.parametrize(("body", "message"), [(b"ready", "not JSON: 'ready'"), ([], "a list, no object")])
def test_answers_of_the_wrong_kind(cloud: Callable[[Answers], CloudApi], body: Any, message: str) -> None:
    api = cloud({"/images": [(200, body)]})
    with pytest.raises(CloudError, match=message):
        api.get("image", "/images")


def test_no_answer() -> None:
    proxy = adapter.Adapter(
        session.Session(auth=noauth.NoAuth()),
        endpoint_override="http://127.0.0.1:1",
        service_type="compute",
        connect_retry_delay=0.01,
    )
    api = CloudApi(SimpleNamespace(compute=proxy))  # type: ignore[arg-type]
    with pytest.raises(CloudError, match="GET /servers got no answer") as failure:
        api.get("compute", "/servers")
    assert failure.value.layer == "Nova API"
    assert failure.value.logs_matter


def test_server_summary_of_a_server_without_host() -> None:
    summary = server_summary(
        {"id": "a", "name": "my_vm", "status": "ERROR", "image": "", "fault": {"message": "No host"}}
    )
    assert summary["fault"] == "No host"
    assert summary["host"] == ""
    assert summary["interfaces"] == []


def test_server_summary_of_a_running_server() -> None:
    summary = server_summary(
        {
            "id": "a",
            "name": "my_vm",
            "status": "ACTIVE",
            "flavor": {"original_name": "m1.tiny", "vcpus": 1, "ram": 512, "disk": 1},
            "addresses": {"nova": [{"addr": "192.168.1.9", "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:01"}]},
            "OS-EXT-SRV-ATTR:host": "node1",
        }
    )
    assert summary["flavor"] == {"name": "m1.tiny", "vcpus": 1, "ram": 512, "disk": 1}
    assert summary["interfaces"] == [{"network": "nova", "address": "192.168.1.9", "mac": "fa:16:3e:00:00:01"}]
    assert summary["host"] == "node1"
