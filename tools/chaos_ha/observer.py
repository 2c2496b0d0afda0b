# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Clients of the cloud on this computer, and a guest that pings another: what users see of a fault."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from tools.chaos.moments import PROJECT
from tools.chaos_ha.site import Failed, Site, wait_until

PEER = "chaos-peer"
SERVER = "my_vm"
CLOUD = "kilonova"
# Requests to each API, and writes of each kind, a second. Three controllers on two cores serve hardly more.
RATES = {"api_requests": 1, "api_writes": 0.2}
# The clients look for what was written, for at most some minutes.
CLIENT_ENDS = 900
# Seconds that a guest takes to boot on a busy computer.
PEER_BOOTS = 180
SSH = (
    "ssh -i /root/.ssh/kilonova_id_ed25519 -o BatchMode=yes -o ConnectTimeout=10 -o StrictHostKeyChecking=no"
    " -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR guest@{address}"
)
PING = "doas sh -c 'setsid ping -i 0.2 {peer} >/run/chaos-ping 2>&1 </dev/null & echo $!'"
# The packet that is under way at that moment counts as lost.
PONG = "doas sh -c 'kill -INT {process}; while kill -0 {process} 2>/dev/null; do :; done; cat /run/chaos-ping'"
COUNTS = re.compile(r"(\d+) packets transmitted, (\d+) packets received")


@dataclass(frozen=True)
class Seen:
    """What the clients saw of a fault."""

    away: float  # seconds without an answer of one API
    refused: int
    requests: int
    stalled: float  # seconds without an acknowledged write of one kind
    acknowledged: int
    lost: int  # acknowledged writes that are not there
    pings: int
    pings_lost: int


def summarize(requests: dict[str, Any], writes: dict[str, Any], pings: tuple[int, int]) -> Seen:
    """Return what the clients printed, in short."""
    return Seen(
        away=max(requests["longest_gap"].values()),
        refused=requests["refused"],
        requests=requests["sent"],
        stalled=max(kind["longest_gap"] for kind in writes.values()),
        acknowledged=sum(kind["acknowledged"] for kind in writes.values()),
        lost=sum(len(kind["lost"]) for kind in writes.values()),
        pings=pings[0],
        pings_lost=pings[1],
    )


def count_pings(text: str) -> tuple[int, int]:
    """Return how many packets ping sent and lost, without the last one, which may be under way when it is stopped."""
    found = COUNTS.search(text)
    if not found:
        raise Failed(f"the guest's ping printed {text!r}")
    sent, received = int(found.group(1)) - 1, int(found.group(2))
    return sent, max(0, sent - received)


class Observer:
    """Two guests on different computes, and the clients."""

    def __init__(self, site: Site) -> None:
        import openstack

        os.environ["OS_CLIENT_CONFIG_FILE"] = str(site.clouds)
        self.site = site
        self.cloud: Any = openstack.connect(cloud=CLOUD)
        self.clients: list[subprocess.Popen[str]] = []
        self.ping = ""
        self.guest, self.gateway = "", ""
        self.peer = self._peer()
        answers = f"doas ping -c 1 -W 1 {self.peer} >/dev/null && echo yes || true"
        wait_until(lambda: bool(self.in_guest(answers)), PEER_BOOTS, "the second guest answers the first one")

    def _peer(self) -> str:
        """Boot a second guest, on another compute if there is one, and return its address."""
        first = self.cloud.get_server(SERVER)
        network, addresses = next(iter(first.addresses.items()))
        self.guest = addresses[0]["addr"]
        subnet = next(iter(self.cloud.network.subnets(network_id=self.cloud.get_network(network).id, ip_version=4)))
        self.gateway = subnet.gateway_ip
        own = first.hypervisor_hostname
        other = next((host for host in self.site.groups["compute"] if host != own), own)
        peer = self.cloud.get_server(PEER) or self.cloud.create_server(
            PEER,
            image=first.image.id,
            flavor=self.cloud.compute.find_flavor(first.flavor["original_name"] or first.flavor["id"]).id,
            network=network,
            security_groups=[group["name"] for group in first.security_groups],
            availability_zone=f"nova:{other}",
            wait=True,
            timeout=300,
        )
        return str(next(iter(peer.addresses.values()))[0]["addr"])

    def in_guest(self, script: str) -> str:
        """Run a command in the first guest, from the controller that is its gateway."""
        return self.site.must(
            self.site.address_holder(self.gateway), f"{SSH.format(address=self.guest)} {shlex.quote(script)}"
        )

    def begin(self) -> None:
        """Start to ping, to ask and to write."""
        self.ping = self.in_guest(PING.format(peer=self.peer)).strip()
        for module, rate in RATES.items():
            command = [sys.executable, "-m", f"tools.{module}", "--cloud", CLOUD, "--rate", str(rate)]
            client = subprocess.Popen(
                command,
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            self.clients.append(client)
        for client in self.clients:
            if "ready\n" not in (client.stderr or []):
                raise Failed("a client of the APIs did not start")

    def stop(self) -> list[str]:
        """Stop the clients that run, which remove what they made, and return what they print."""
        clients, self.clients = self.clients, []
        for client in clients:
            client.send_signal(signal.SIGTERM)
        return [client.communicate(timeout=CLIENT_ENDS)[0] for client in clients]

    def end(self) -> Seen:
        """Stop, and return what was seen. What was refused, and by which API, is in the logs."""
        said = self.stop()
        (self.site.logs / f"{time.strftime('%H%M%S')}-clients.jsonl").write_text("".join(said))
        pings = count_pings(self.in_guest(PONG.format(process=self.ping)))
        return summarize(json.loads(said[0]), json.loads(said[1]), pings)

    def close(self) -> None:
        """Remove the second guest."""
        self.cloud.delete_server(PEER, wait=True)
