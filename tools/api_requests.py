# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Send requests to the APIs of a cloud and pings to a guest until SIGTERM. Print as JSON what came of them.

Runs with the programs of the cloud only, on a controller as root, or where a clouds.yaml is. Logs in as a user of its
own, which it removes, so that a new password of the administrator does not end its token. Each request has a connection
of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import secrets
import signal
import ssl
import sys
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

USER = "api-requests"
TIMEOUT = 90
# Each fifth request to Keystone is a login, which takes a CPU a third of a second.
LOGIN_EVERY = 5
PATHS = {
    "compute": "/servers/detail",
    "image": "/v2/images",
    "network": "/v2.0/networks",
    "placement": "/resource_providers",
    "identity": "/v3/auth/tokens",
}
HTTP_ERROR = 400
SHOWN = 20
LATE, ANSWERED = re.compile(r"no answer yet for icmp_seq=(\d+)"), re.compile(r"bytes from .*icmp_seq=(\d+)")


@dataclass
class Seen:
    """What came of the requests."""

    sent: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PATHS, 0))
    slowest: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PATHS, 0.0))
    answered: dict[str, float] = field(default_factory=dict)
    longest_gap: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PATHS, 0.0))
    refused: list[dict[str, Any]] = field(default_factory=list)

    def add(self, api: str, began: float, status: int | None, error: str = "") -> None:
        """Count a request."""
        self.sent[api] += 1
        seconds = round(time.time() - began, 2)
        self.slowest[api] = max(self.slowest[api], seconds)
        if status is None or status >= HTTP_ERROR:
            clock = time.strftime("%H:%M:%S", time.localtime(began))
            self.refused.append({"api": api, "at": clock, "seconds": seconds, "answer": status or error})
        else:
            now = time.time()
            gap = round(now - self.answered.get(api, now), 1)
            self.longest_gap[api] = max(self.longest_gap[api], gap)
            self.answered[api] = now

    def summary(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "sent": sum(self.sent.values()),
            "refused": len(self.refused),
            "sent_to": self.sent,
            "slowest": self.slowest,
            "longest_gap": self.longest_gap,
            "examples": self.refused[:SHOWN],
        }


def lost_pings(text: str) -> dict[str, int]:
    """Return what ping says, but for the last packet, which may be under way when it is stopped."""
    late, answered = set(LATE.findall(text)), set(ANSWERED.findall(text))
    return {"sent": len(late | answered), "lost": len(late - answered)}


def message(method: str, host: str, path: str, token: str, body: bytes) -> bytes:
    """Return a request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", "Accept: application/json"]
    lines += [f"X-Auth-Token: {token}", f"X-Subject-Token: {token}"] if token else []
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", ""]).encode() + body


class Client:
    """The user, its token and the endpoints."""

    def __init__(self, name: str = USER, cloud_name: str = "admin") -> None:
        import openstack

        self.cloud_name = cloud_name
        cloud: Any = openstack.connect(cloud=cloud_name)
        self.name = name
        self.project = cloud.current_project
        self.password = secrets.token_hex(16)
        self.remove()
        user = cloud.identity.create_user(
            name=self.name, password=self.password, domain_id="default", default_project_id=self.project.id
        )
        self.user = user.id
        role = cloud.identity.find_role("admin", ignore_missing=False)
        cloud.identity.assign_project_role_to_user(self.project.id, user.id, role.id)
        verify, _ = cloud.config.get_requests_verify_args()
        self.authority = verify if isinstance(verify, str) else None
        self.urls = {name: urlsplit(str(cloud.session.get_endpoint(service_type=name))) for name in PATHS}
        self.token = ""

    def tls(self) -> ssl.SSLContext:
        """Return what to check the certificate with, read again for each connection, as a new process does."""
        return ssl.create_default_context(cafile=self.authority)

    def remove(self) -> None:
        """Delete the user, with the administrator's password of now."""
        import openstack

        cloud: Any = openstack.connect(cloud=self.cloud_name)
        if user := cloud.identity.find_user(self.name):
            cloud.identity.delete_user(user)

    def login(self) -> bytes:
        """Return the body of a login."""
        user = {"name": self.name, "domain": {"id": "default"}, "password": self.password}
        scope = {"project": {"id": self.project.id}}
        identity = {"methods": ["password"], "password": {"user": user}}
        return json.dumps({"auth": {"identity": identity, "scope": scope}}).encode()

    async def send(self, api: str, body: bytes = b"") -> tuple[int, str]:
        """Send one request and return the status and the token that came with it."""
        path = PATHS[api] if api == "identity" else self.urls[api].path.rstrip("/") + PATHS[api]
        answer = await self.exchange(api, "POST" if body else "GET", path, "" if body else self.token, body)
        head = answer.partition("\r\n\r\n")[0]
        issued = re.search(r"(?im)^x-subject-token: (\S+)", head)
        return int(head.split(maxsplit=2)[1]), issued.group(1) if issued else ""

    async def call(self, api: str, method: str, path: str, body: bytes) -> int:
        """Send one request with the token, to a path below the endpoint's, and return the status."""
        # Endpoints of Nova have the version in their path.
        prefix = self.urls[api].path.rstrip("/") if api == "compute" else ""
        answer = await self.exchange(api, method, prefix + path, self.token, body)
        return int(answer.split(maxsplit=2)[1])

    async def exchange(self, api: str, method: str, path: str, token: str, body: bytes) -> str:
        """Return the answer to a request, which has a connection of its own."""
        url = self.urls[api]
        host, port = str(url.hostname), url.port or 443
        reader, writer = await asyncio.open_connection(host, port, ssl=self.tls())
        try:
            writer.write(message(method, f"{host}:{port}", path, token, body))
            return (await reader.read()).decode(errors="replace")
        finally:
            writer.close()


async def one(client: Client, seen: Seen, api: str, body: bytes) -> None:
    """Send a request and count it."""
    began = time.time()
    try:
        async with asyncio.timeout(TIMEOUT):
            status, _ = await client.send(api, body)
        seen.add(api, began, status)
    except (OSError, TimeoutError, ValueError, IndexError) as error:
        seen.add(api, began, None, repr(error))


async def run(client: Client, rate: float, guest: str) -> dict[str, Any]:
    """Send requests to each API at a rate until SIGTERM, and pings beside them."""
    client.token = (await client.send("identity", client.login()))[1]
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    command = ["ping", "-n", "-O", "-i", "0.2", guest] if guest else ["true"]
    ping = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, start_new_session=True)
    said = asyncio.create_task(ping.communicate())
    print("ready", file=sys.stderr, flush=True)
    seen, began, turn, calls = Seen(), time.monotonic(), 0, set()
    while not stopped.is_set():
        for api in PATHS:
            body = client.login() if api == "identity" and turn % LOGIN_EVERY == 0 else b""
            calls.add(call := asyncio.create_task(one(client, seen, api, body)))
            call.add_done_callback(calls.discard)
        turn += 1
        await asyncio.sleep(max(0.0, began + turn / rate - time.monotonic()))
    if ping.returncode is None:
        ping.send_signal(signal.SIGINT)
    text, _ = await said
    await asyncio.gather(*calls)
    seconds = round(time.monotonic() - began, 1)
    return {"seconds": seconds, **seen.summary(), "pings": lost_pings(text.decode())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=5.0, help="requests a second to each API (default 5)")
    parser.add_argument("--guest", default="", help="address to ping five times a second")
    parser.add_argument("--cloud", default="admin", help="name in clouds.yaml (default admin)")
    options = parser.parse_args()
    client = Client(cloud_name=options.cloud)
    try:
        print(json.dumps(asyncio.run(run(client, options.rate, options.guest))), flush=True)
    finally:
        client.remove()


if __name__ == "__main__":
    main()
