# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Write through the APIs of a cloud until SIGTERM, then look for all that was acknowledged. Print it as JSON.

Runs where api_requests.py runs, with it: python3 -m tools.api_writes. Creates keypairs, ports and images and
sets a growing number as metadata of a server, each a few times a second. What was answered with success must be there
afterwards. Removes all of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from tools.api_requests import Client

PREFIX = "api-writes-"
# Writes that may be under way at the same time.
IN_FLIGHT = 200
TIMEOUT = 60
SUCCESS = range(200, 300)
# How long to wait for the cloud before looking for what was written.
PATIENCE = 180


@dataclass
class Kind:
    """One kind of write, and what came of it."""

    name: str
    acknowledged: list[int] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)
    last: float = 0.0
    longest: float = 0.0

    def add(self, number: int, answer: object) -> None:
        """Count a write that was answered with success."""
        now = time.monotonic()
        if answer in SUCCESS:
            self.acknowledged.append(number)
            self.longest = max(self.longest, now - self.last) if self.last else 0.0
            self.last = now
        else:
            self.failed[str(answer)] = self.failed.get(str(answer), 0) + 1


def lost(acknowledged: list[int], found: dict[str, Any] | int) -> list[int]:
    """Return the acknowledged writes that are not there: objects by name, or the last number of a growing one."""
    if isinstance(found, dict):
        return [number for number in acknowledged if f"{PREFIX}{number}" not in found]
    # Writes of a number may overtake each other.
    return [number for number in acknowledged if number > found + IN_FLIGHT]


class Writer:
    """Writes with the token of a user of its own."""

    def __init__(self, client: Client, server: str) -> None:
        import openstack

        self.client = client
        self.cloud: Any = openstack.connect(cloud=client.cloud_name)
        # More than a project may have by default.
        self.cloud.set_compute_quotas(client.project.id, key_pairs=-1)
        self.cloud.set_network_quotas(client.project.id, port=-1)
        self.server = next(one.id for one in self.cloud.compute.servers() if not server or one.name == server)
        self.network = next(one.id for one in self.cloud.network.networks() if one.is_router_external is not None)
        self.kinds = {name: Kind(name) for name in ("keypair", "port", "image", "metadata")}

    def request(self, kind: str, number: int) -> tuple[str, str, str, dict[str, Any]]:
        """Return the service, the method, the path and the body of a write."""
        name = f"{PREFIX}{number}"
        if kind == "keypair":
            key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8q0yJf4G0vX1r0Zq2m9sYh3n7kq8JmT0bV5c6d7e8f"
            return "compute", "POST", "/os-keypairs", {"keypair": {"name": name, "public_key": key}}
        if kind == "port":
            return "network", "POST", "/v2.0/ports", {"port": {"name": name, "network_id": self.network}}
        if kind == "image":
            return "image", "POST", "/v2/images", {"name": name, "disk_format": "raw", "container_format": "bare"}
        body = {"meta": {PREFIX: str(number)}}
        return "compute", "PUT", f"/servers/{self.server}/metadata/{PREFIX}", body

    async def write(self, kind: str, number: int) -> None:
        """Send one write and count it."""
        service, method, path, body = self.request(kind, number)
        try:
            async with asyncio.timeout(TIMEOUT):
                status = await self.client.call(service, method, path, json.dumps(body).encode())
            self.kinds[kind].add(number, status)
        except (OSError, TimeoutError, ValueError, IndexError) as error:
            self.kinds[kind].add(number, type(error).__name__)

    def found(self) -> dict[str, Any]:
        """Return the objects of the writer by kind and name, and the number in the metadata."""
        network, image, compute = self.cloud.network, self.cloud.image, self.cloud.compute
        user = {"user_id": self.client.user}
        return {
            "keypair": {one.name: one for one in compute.keypairs(**user) if one.name.startswith(PREFIX)},
            "port": {one.name: one for one in network.ports() if one.name.startswith(PREFIX)},
            "image": {one.name: one for one in image.images() if (one.name or "").startswith(PREFIX)},
            "metadata": int(compute.get_server_metadata(self.server).metadata.get(PREFIX, 0)),
        }

    def look(self) -> dict[str, Any]:
        """Wait until the cloud answers, and return what of the acknowledged writes is not there."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                found = self.found()
                break
            except Exception:
                if time.monotonic() > end:
                    raise
                time.sleep(1)
        return {name: lost(kind.acknowledged, found[name]) for name, kind in self.kinds.items()}

    def remove(self) -> None:
        """Remove everything that was written."""
        found = self.found()
        for keypair in found["keypair"].values():
            self.cloud.compute.delete_keypair(keypair, user_id=self.client.user)
        for port in found["port"].values():
            self.cloud.network.delete_port(port)
        for image in found["image"].values():
            self.cloud.image.delete_image(image)
        self.cloud.compute.delete_server_metadata(self.server, [PREFIX])
        self.cloud.delete_compute_quotas(self.client.project.id)
        self.cloud.delete_network_quotas(self.client.project.id)


async def run(writer: Writer, rate: float) -> None:
    """Write each kind at a rate until SIGTERM."""
    writer.client.token = (await writer.client.send("identity", writer.client.login()))[1]
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    print("ready", file=sys.stderr, flush=True)
    began, turn, calls = time.monotonic(), 0, set()
    while not stopped.is_set():
        turn += 1
        for kind in writer.kinds:
            calls.add(call := asyncio.create_task(writer.write(kind, turn)))
            call.add_done_callback(calls.discard)
        await asyncio.sleep(max(0.0, began + turn / rate - time.monotonic()))
    await asyncio.gather(*calls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=2.0, help="writes of each kind a second (default 2)")
    parser.add_argument("--server", default="my_vm", help="server whose metadata is written")
    parser.add_argument("--cloud", default="admin", help="name in clouds.yaml (default admin)")
    options = parser.parse_args()
    client = Client("api-writes", options.cloud)
    try:
        writer = Writer(client, options.server)
        asyncio.run(run(writer, options.rate))
        gone = writer.look()
        summary = {
            name: {
                "acknowledged": len(kind.acknowledged),
                "failed": kind.failed,
                "longest_gap": round(kind.longest, 1),
                "lost": gone[name],
            }
            for name, kind in writer.kinds.items()
        }
        print(json.dumps(summary), flush=True)
        writer.remove()
    finally:
        client.remove()


if __name__ == "__main__":
    main()
