# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Measure how long guests take to become ACTIVE, or to move while they run. Prints JSON.

Runs on a controller from which guests are reached, as root, with the programs of the cloud only:

    python3 guest_times.py boot --compute ceph=cmp1 --compute local=cmp2
    python3 guest_times.py move --fill 512

boot makes images of random data, of which nothing is sparse or shared; their guests need not start. The first guest of
an image on a compute is measured by itself, because computes keep the images that they download. Ten guests at once
need a quota (openstack quota set --instances 30 --cores 50) and a cpu_allocation_ratio. move sends 10 pings a second
to a guest of the cloud's image that moves from compute to compute. What is made is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

NAME = "guest-times"
MIB = 2**20
GIB = 1024
POLL_SECONDS = 0.1
PATIENCE = 900
VERSION = "2.79"
# Nearly nothing, so that many fit; and what the cloud's image needs.
BOOT_MEMORY, MOVE_MEMORY = 64, 512
PING = ["ping", "-n", "-D", "-i", "0.1"]
# Before and after a move.
PING_SECONDS = 3
SSH = [
    *("ssh", "-n", "-i", "/root/.ssh/kilonova_id_ed25519", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
    *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
]


class FailedError(Exception):
    """Something that does not become what it is to be."""


def summary(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each figure."""
    return {name: round(statistics.median(one[name] for one in rounds), 1) for name in (rounds[0] if rounds else {})}


def places(given: Sequence[str]) -> dict[str, str]:
    """Return the computes by the names of their kinds of disks. Raises ValueError where one is neither."""
    found = dict(one.partition("=")[::2] for one in given)
    if not all(found) or not all(found.values()):
        raise ValueError(f"{', '.join(given)}: write KIND=COMPUTE for each, such as ceph=cmp1")
    return found


def lost(text: str) -> dict[str, float]:
    """Return how many pings were sent and lost, and the longest time without an answer."""
    totals = re.search(r"(\d+) packets transmitted, (\d+) received", text)
    stamps = [float(one) for one in re.findall(r"^\[([\d.]+)\].* bytes from ", text, re.MULTILINE)]
    if totals is None or not stamps:
        raise FailedError(f"no answer to a ping:\n{text[-500:]}")
    sent, received = map(int, totals.groups())
    gap = max((after - before for before, after in zip(stamps, stamps[1:], strict=False)), default=0.0)
    return {"sent": sent, "lost": sent - received, "longest gap": round(gap, 2)}


def until(condition: Callable[[], Any], what: str) -> Any:
    """Return the answer of a condition as soon as it has one."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise FailedError(f"{what} is not so after {PATIENCE} s")
        time.sleep(POLL_SECONDS)
    return answer


class Cloud:
    """The cloud that is measured."""

    def __init__(self, connection: Any, network: str) -> None:
        self.connection = connection
        self.nova = connection.compute
        self.nova.default_microversion = VERSION
        self.network = connection.network.find_network(network, ignore_missing=False).id

    @contextmanager
    def flavor(self, memory: int, mib: int) -> Iterator[str]:
        """Make a flavor with a disk for so much, and remove it at the end."""
        made = self.nova.create_flavor(name=NAME, ram=memory, vcpus=1, disk=-(-mib // GIB))
        try:
            yield str(made.id)
        finally:
            self.nova.delete_flavor(made)

    @contextmanager
    def image(self, mib: int) -> Iterator[str]:
        """Make a raw image of random data, and remove it at the end."""
        made = None
        try:
            with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
                for _ in range(mib):
                    file.write(os.urandom(MIB))
                file.flush()
                options = {"disk_format": "raw", "container_format": "bare", "allow_duplicates": True}
                made = self.connection.image.create_image(name=f"{NAME}-{mib}", filename=file.name, **options)
            until(lambda: self.connection.image.get_image(made).status == "active", f"the image of {mib} MiB is active")
            yield str(made.id)
        finally:
            if made is not None:
                self.connection.image.delete_image(made)

    @contextmanager
    def guests(self, count: int, image: str, flavor: str, **more: Any) -> Iterator[tuple[float, list[str]]]:
        """Boot guests at once. Yield the seconds until all are ACTIVE, and the guests; remove them at the end."""
        began = time.monotonic()
        body = {"image_id": image, "flavor_id": flavor, "networks": [{"uuid": self.network}], **more}
        made: list[str] = []
        try:
            made.extend(self.nova.create_server(name=f"{NAME}-{number}", **body).id for number in range(count))
            until(lambda: self.all_active(made), f"{count} guests are ACTIVE")
            yield time.monotonic() - began, made
        finally:
            for guest in made:
                self.nova.delete_server(guest, force=True)
            until(lambda: not {*made} & {one.id for one in self.nova.servers(name=NAME)}, "the guests are gone")

    def all_active(self, guests: Sequence[str]) -> bool:
        """Return whether all guests are ACTIVE, and nothing is under way."""
        now = {one.id: one for one in self.nova.servers(name=NAME)}
        for guest in guests:
            if now[guest].status == "ERROR":
                raise FailedError(f"a guest is in ERROR: {self.nova.get_server(guest).fault}")
        return all(now[guest].status == "ACTIVE" and not now[guest].task_state for guest in guests)

    def boot(self, image: str, flavor: str, compute: str, count: int) -> float:
        """Return the seconds until so many guests on a compute are ACTIVE."""
        with self.guests(count, image, flavor, availability_zone=f"nova:{compute}") as (seconds, _):
            return seconds

    def move(self, guest: str, address: str) -> dict[str, Any]:
        """Move a guest to another compute while it runs and is pinged."""
        before = self.nova.get_server(guest).compute_host
        pings = subprocess.Popen([*PING, address], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            time.sleep(PING_SECONDS)
            began = time.monotonic()
            self.nova.live_migrate_server(guest, host=None, block_migration="auto")
            until(lambda: self.nova.get_server(guest).compute_host != before, "the guest is on another compute")
            until(lambda: self.all_active([guest]), "the guest is ACTIVE")
            seconds = time.monotonic() - began
            time.sleep(PING_SECONDS)
        finally:
            pings.send_signal(signal.SIGINT)
            text = pings.communicate()[0]
        return {"seconds": round(seconds, 1), **lost(text)}


def boots(cloud: Cloud, computes: Mapping[str, str], mib: int, many: int, rounds: int) -> dict[str, Any]:
    """Return the seconds of boots from an image of one size, by kind of disk."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in computes}
    with cloud.flavor(BOOT_MEMORY, mib) as flavor:
        for number in range(rounds):
            with cloud.image(mib) as image:
                for kind in list(computes)[:: 1 if number % 2 == 0 else -1]:
                    counts = {"first": 1, "next": 1, f"{many} at once": many}
                    one = {name: cloud.boot(image, flavor, computes[kind], count) for name, count in counts.items()}
                    found[kind].append(one)
    return {kind: summary(figures) | {"rounds": figures} for kind, figures in found.items()}


def moves(cloud: Cloud, image_name: str, user: str, fill: int, rounds: int) -> list[dict[str, Any]]:
    """Return what moves took and lost, of a guest whose disk has so many MiB of random data of its own."""
    image = cloud.connection.image.find_image(image_name, ignore_missing=False).id
    with (
        cloud.flavor(MOVE_MEMORY, GIB + fill) as flavor,
        cloud.guests(1, image, flavor, key_name="kilonova") as (_, (guest,)),
    ):
        until(lambda: "ready" in (cloud.nova.get_server_console_output(guest)["output"] or ""), "the guest is ready")
        addresses = cloud.nova.get_server(guest).addresses
        address = next(entry["addr"] for entries in addresses.values() for entry in entries)
        if fill:
            command = f"sudo dd if=/dev/urandom of=/var/fill bs=1M count={fill} conv=fsync"
            done = subprocess.run([*SSH, f"{user}@{address}", command], capture_output=True, text=True, check=False)
            if done.returncode:
                raise FailedError(f"the guest could not write {fill} MiB: {done.stderr.strip()}")
        return [cloud.move(guest, address) for _ in range(rounds)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="guest_times", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", default="nova")
    parser.add_argument("--cloud", default="admin")
    what = parser.add_subparsers(dest="what", required=True)
    boot = what.add_parser("boot")
    boot.add_argument("--compute", action="append", required=True, help="KIND=COMPUTE, for each kind of disk")
    boot.add_argument("--size", type=int, action="append", help="MiB of an image: 20 and 1024")
    boot.add_argument("--guests", type=int, default=10, help="how many at once")
    move = what.add_parser("move")
    move.add_argument("--image", default="kilonova-guest")
    move.add_argument("--user", default="guest")
    move.add_argument("--fill", type=int, default=0, help="MiB of random data that it writes first, 400 at most")
    arguments = parser.parse_args()
    if arguments.what == "boot":
        try:
            computes = places(arguments.compute)
        except ValueError as error:
            parser.error(str(error))
    # On controllers.
    import openstack

    cloud = Cloud(openstack.connect(cloud=arguments.cloud), arguments.network)
    if arguments.what == "boot":
        sizes = arguments.size or [20, 1024]
        found: Any = {f"{mib} MiB": boots(cloud, computes, mib, arguments.guests, arguments.rounds) for mib in sizes}
    else:
        found = moves(cloud, arguments.image, arguments.user, arguments.fill, arguments.rounds)
    print(json.dumps({"load": os.getloadavg(), arguments.what: found}, indent=1))


if __name__ == "__main__":
    main()
