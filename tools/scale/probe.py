#!/usr/bin/python3
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Measure a host and, on the controller, the cloud. make bench-scale copies this to machines and runs it as root.

Each command prints one JSON object. Reads /proc of the machine, which leaves out other machines on the computer.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")
# Ports of the controller that computes and APIs connect to.
PORTS = {
    "keystone": 5000,
    "nova": 8774,
    "placement": 8778,
    "glance": 9292,
    "neutron": 9696,
    "ovn_southbound": 16642,
    "rabbitmq": 5671,
    "mariadb": 3306,
}
COMPUTE = "compute 2.79"
POLL_SECONDS = 1.0


def unit_of(cgroup: str) -> str:
    """Return the systemd unit of a process, from its /proc/PID/cgroup."""
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("name=systemd", ""):
            units = re.findall(r"[^/]+\.(?:service|scope|socket)", path)
            if units:
                return str(units[-1])
    return "other"


def cpu_ticks(stat: str) -> int:
    """Return the CPU time of a process and its ended children, from its /proc/PID/stat."""
    # The second field, the name, may hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return sum(map(int, fields[11:15]))


def pss_kib(smaps_rollup: str) -> int:
    """Return the proportional share of memory of a process, from its /proc/PID/smaps_rollup."""
    found = re.search(r"^Pss: +(\d+) kB", smaps_rollup, re.MULTILINE)
    return int(found[1]) if found else 0


def limit_of_files(limits: str) -> int:
    """Return how many files a process may open, from its /proc/PID/limits."""
    found = re.search(r"^Max open files +(\d+)", limits, re.MULTILINE)
    return int(found[1]) if found else 0


def processes(proc: Path = PROC) -> Iterable[tuple[str, Path]]:
    """Find the unit and directory of each process except kernel threads."""
    for directory in proc.iterdir():
        if directory.name.isdigit() and int(directory.name) != os.getpid():
            try:
                if (directory / "cmdline").read_bytes():
                    yield unit_of((directory / "cgroup").read_text()), directory
            except OSError:
                continue  # It ended meanwhile.


def memory_by_unit() -> dict[str, float]:
    """Return the MiB (PSS) of each unit."""
    total: Counter[str] = Counter()
    for unit, directory in processes():
        try:
            total[unit] += pss_kib((directory / "smaps_rollup").read_text())
        except OSError:
            continue
    return {unit: round(kib / 1024, 1) for unit, kib in sorted(total.items())}


def ticks_by_process() -> dict[tuple[str, str], int]:
    """Return the CPU time of each process, by unit and process."""
    ticks = {}
    for unit, directory in processes():
        try:
            ticks[unit, directory.name] = cpu_ticks((directory / "stat").read_text())
        except OSError:
            continue
    return ticks


def cpu_between(before: dict[tuple[str, str], int], after: dict[tuple[str, str], int]) -> dict[str, float]:
    """Return the CPU seconds of each unit. A process that came and went counts for a parent that waited for it."""
    total: Counter[str] = Counter()
    for (unit, pid), ticks in after.items():
        total[unit] += ticks - before.get((unit, pid), 0)
    return {unit: round(ticks / TICKS, 2) for unit, ticks in sorted(total.items())}


def output_of(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=180).stdout


def connections(listing: str) -> dict[str, int]:
    """Return the connections to each of PORTS, from `ss -Htn state established` (column 3: local address)."""
    ports = Counter(line.split()[2].rpartition(":")[2] for line in listing.splitlines() if line.strip())
    return {name: ports[str(port)] for name, port in PORTS.items()}


def client_name(properties: list[list[Any]]) -> str:
    """Return the program of a connection, which oslo.messaging names program:pid:uuid."""
    names = [str(value) for key, _, value in properties if key == "connection_name"]
    return names[0].partition(":")[0] if names else "unnamed"


def rabbitmq() -> dict[str, Any]:
    """Return connections, channels, queues, memory and open files of RabbitMQ."""
    status = json.loads(output_of("rabbitmqctl", "status", "--formatter", "json"))
    clients = json.loads(output_of("rabbitmqctl", "list_connections", "client_properties", "--formatter", "json"))
    channels = json.loads(output_of("rabbitmqctl", "list_channels", "pid", "--formatter", "json"))
    server = PROC / str(status["pid"])
    return {
        "connections": len(clients),
        "by_client": dict(Counter(client_name(one["client_properties"]) for one in clients)),
        "channels": len(channels),
        "queues": status["totals"]["queue_count"],
        "memory_mib": round(status["memory"]["total"]["rss"] / 1024 / 1024, 1),
        "memory_limit_mib": round(status["vm_memory_high_watermark_limit"] / 1024 / 1024, 1),
        "files": len(list((server / "fd").iterdir())),
        "files_limit": limit_of_files((server / "limits").read_text()),
    }


def mariadb() -> dict[str, Any]:
    """Return connections of MariaDB, and the number of queries since its start."""
    rows = output_of(
        "mariadb",
        "--batch",
        "--skip-column-names",
        "--execute",
        "SHOW GLOBAL STATUS WHERE Variable_name IN ('Threads_connected', 'Max_used_connections', 'Questions');"
        "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('max_connections', 'open_files_limit');"
        "SELECT CONCAT('user:', user), COUNT(*) FROM information_schema.processlist GROUP BY user",
    )
    pairs = dict(line.split("\t") for line in rows.splitlines())
    users = {name.partition(":")[2]: int(count) for name, count in pairs.items() if name.startswith("user:")}
    return {name.lower(): int(value) for name, value in pairs.items() if not name.startswith("user:")} | {
        "by_user": users
    }


def measure(seconds: float, controller: bool) -> dict[str, Any]:
    """Measure memory and connections, then CPU time and queries of the idle cloud."""
    result: dict[str, Any] = {"memory_mib": memory_by_unit()}
    result["memory_total_mib"] = round(sum(result["memory_mib"].values()), 1)
    if controller:
        result["connections"] = connections(output_of("ss", "-Htn", "state", "established"))
        result["rabbitmq"] = rabbitmq()
        result["mariadb"] = mariadb()
    if seconds:
        before, start = ticks_by_process(), time.monotonic()
        time.sleep(seconds)
        used, passed = cpu_between(before, ticks_by_process()), time.monotonic() - start
        result["cpu_per_minute"] = {unit: round(cpu * 60 / passed, 2) for unit, cpu in used.items()}
        result["cpu_total_per_minute"] = round(sum(result["cpu_per_minute"].values()), 2)
        if controller:
            queries = mariadb()["questions"] - result["mariadb"]["questions"]
            result["queries_per_second"] = round(queries / (time.monotonic() - start), 1)
    return result


class Cloud:
    """The APIs of the cloud, as administrator."""

    def __init__(self) -> None:
        import openstack

        self.connection: Any = openstack.connect(cloud="admin")

    def request(self, service: str, method: str, path: str, version: str = COMPUTE, **rest: Any) -> Any:
        """Return the JSON answer to a request. Raise RuntimeError for an error."""
        adapter = {"compute": self.connection.compute, "placement": self.connection.placement}[service]
        answer = adapter.request(path, method, headers={"OpenStack-API-Version": version}, raise_exc=False, **rest)
        if answer.status_code >= 400:  # noqa: PLR2004
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer.json() if answer.content else None

    def computes(self, prefix: str) -> list[dict[str, Any]]:
        services = self.request("compute", "GET", "/os-services?binary=nova-compute")["services"]
        return [one for one in services if one["host"].startswith(prefix)]

    def providers(self, prefix: str) -> list[str]:
        found = self.request("placement", "GET", "/resource_providers", "placement 1.30")["resource_providers"]
        return [one["name"] for one in found if one["name"].startswith(prefix)]

    def servers(self, prefix: str, detail: str = "", **filters: str) -> list[dict[str, Any]]:
        query = "&".join(f"{key}={value}" for key, value in ({"name": f"^{prefix}", "limit": "1000"} | filters).items())
        return list(self.request("compute", "GET", f"/servers{detail}?{query}")["servers"])


def poll(condition: Callable[[], bool], timeout: float) -> tuple[bool, float]:
    """Wait for a condition. Return whether it holds, and how long that took."""
    start = time.monotonic()
    while not (holds := condition()) and time.monotonic() - start < timeout:
        time.sleep(POLL_SECONDS)
    return holds, round(time.monotonic() - start, 1)


def wait_up(prefix: str, count: int, timeout: float) -> dict[str, Any]:
    """Wait until so many simulated computes are up in Nova and have resource providers."""
    cloud = Cloud()

    def ready() -> bool:
        up = [one for one in cloud.computes(prefix) if one["state"] == "up"]
        return len(up) >= count and len(cloud.providers(prefix)) >= count

    reached, seconds = poll(ready, timeout)
    up = sum(one["state"] == "up" for one in cloud.computes(prefix))
    return {"reached": reached, "seconds": seconds, "up": up, "providers": len(cloud.providers(prefix))}


def seconds_of(action: Callable[[], Any]) -> float:
    start = time.monotonic()
    action()
    return round(time.monotonic() - start, 2)


def lists(rounds: int) -> dict[str, Any]:
    """Return the median seconds that the lists of all computes take, in the API and in the client."""
    cloud = Cloud()
    clouds = {"OS_CLOUD": "admin", "PATH": os.environ.get("PATH", "/usr/bin"), "HOME": "/root"}

    def client(*command: str) -> Callable[[], Any]:
        return lambda: subprocess.run(
            ["openstack", *command, "-f", "json"], check=True, capture_output=True, env=clouds, timeout=300
        )

    def api(path: str) -> Callable[[], Any]:
        return lambda: cloud.request("compute", "GET", path)

    actions = {
        "api_services": api("/os-services"),
        "api_hypervisors": api("/os-hypervisors/detail"),
        "client_services": client("compute", "service", "list"),
        "client_hypervisors": client("hypervisor", "list"),
    }
    cloud.computes("")  # The first request also fetches a token and the catalog.
    return {name: sorted(seconds_of(action) for _ in range(rounds))[rounds // 2] for name, action in actions.items()}


def burst(count: int, at_once: int, prefix: str, only: str, image: str, flavor: str, timeout: float) -> dict[str, Any]:
    """Boot servers without a network on simulated computes, count those that become ACTIVE, and delete them.

    Disables other computes and lifts the quota of the project meanwhile.
    """
    cloud = Cloud()
    project = cloud.connection.current_project_id
    image_id = cloud.connection.image.find_image(image, ignore_missing=False).id
    flavor_id = cloud.connection.compute.find_flavor(flavor, ignore_missing=False).id
    others = [one for one in cloud.computes("") if not one["host"].startswith(only) and one["status"] == "enabled"]
    result: dict[str, Any] = {"asked": count, "at_once": at_once}

    def boot(number: int) -> str:
        body = {"name": f"{prefix}{number}", "imageRef": image_id, "flavorRef": flavor_id, "networks": "none"}
        try:
            cloud.request("compute", "POST", "/servers", json={"server": body})
        except RuntimeError as error:
            return str(error)
        return ""

    def remove(server: dict[str, Any]) -> None:
        cloud.request("compute", "DELETE", f"/servers/{server['id']}")

    try:
        cloud.request(
            "compute",
            "PUT",
            f"/os-quota-sets/{project}",
            json={"quota_set": dict.fromkeys(("instances", "cores", "ram"), -1)},
        )
        for one in others:
            cloud.request("compute", "PUT", f"/os-services/{one['id']}", json={"status": "disabled"})
        start = time.monotonic()
        with ThreadPoolExecutor(at_once) as pool:
            refusals = [text for text in pool.map(boot, range(count)) if text]
        result["requests_seconds"] = round(time.monotonic() - start, 1)
        result["refused"] = len(refusals)

        def settled() -> bool:
            done = len(cloud.servers(prefix, status="ACTIVE")) + len(cloud.servers(prefix, status="ERROR"))
            return done >= count - len(refusals)

        poll(settled, timeout)
        result["seconds"] = round(time.monotonic() - start, 1)
        found = cloud.servers(prefix, "/detail")
        result["active"] = sum(one["status"] == "ACTIVE" for one in found)
        result["by_compute"] = dict(Counter(str(one.get("OS-EXT-SRV-ATTR:host")) for one in found))
        result["computes_used"] = len(result["by_compute"])
        faults = [str(one.get("fault", {}).get("message", "")) for one in found if one["status"] == "ERROR"]
        result["faults"] = sorted({text[:300] for text in [*refusals, *faults]})
    finally:
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(remove, cloud.servers(prefix)))
        gone, seconds = poll(lambda: not cloud.servers(prefix), timeout)
        result |= {"deleted": gone, "delete_seconds": seconds}
        for one in others:
            cloud.request("compute", "PUT", f"/os-services/{one['id']}", json={"status": "enabled"})
        cloud.request("compute", "DELETE", f"/os-quota-sets/{project}")
    return result


def remove_computes(prefix: str) -> dict[str, Any]:
    """Delete the services with their providers and host mappings, and count what is left."""
    cloud = Cloud()
    services = cloud.computes(prefix)
    start = time.monotonic()
    for one in services:
        cloud.request("compute", "DELETE", f"/os-services/{one['id']}")
    seconds = round(time.monotonic() - start, 1)
    pattern = prefix.replace("_", r"\_")
    rows = output_of(
        "mariadb",
        "--batch",
        "--skip-column-names",
        "--execute",
        f"SELECT 'mappings', COUNT(*) FROM nova_api.host_mappings WHERE host LIKE '{pattern}%';"
        f"SELECT 'nodes', COUNT(*) FROM nova.compute_nodes WHERE host LIKE '{pattern}%' AND deleted = 0",
    )
    left = {name: int(count) for name, count in (line.split("\t") for line in rows.splitlines())}
    left |= {"services": len(cloud.computes(prefix)), "providers": len(cloud.providers(prefix))}
    # A queue without a reader stays until RabbitMQ restarts.
    queues = json.loads(output_of("rabbitmqctl", "list_queues", "name", "consumers", "--formatter", "json"))
    ours = [one["name"] for one in queues if f".{prefix}" in one["name"]]
    return {"removed": len(services), "seconds": seconds, "left": left, "queues_left": len(ours)}


def main() -> int:
    """Run one command and print its result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("measure")
    one.add_argument("--seconds", type=float, default=0)
    one.add_argument("--controller", action="store_true")
    one = commands.add_parser("wait-up")
    one.add_argument("--prefix", required=True)
    one.add_argument("--count", type=int, required=True)
    one.add_argument("--timeout", type=float, default=900)
    one = commands.add_parser("lists")
    one.add_argument("--rounds", type=int, default=3)
    one = commands.add_parser("burst")
    one.add_argument("--count", type=int, default=50)
    one.add_argument("--at-once", type=int, default=5)
    one.add_argument("--name", default="scale-burst-")
    one.add_argument("--prefix", required=True)
    one.add_argument("--image", default="kilonova-guest")
    one.add_argument("--flavor", default="m1.tiny")
    one.add_argument("--timeout", type=float, default=600)
    one = commands.add_parser("remove")
    one.add_argument("--prefix", required=True)
    given = parser.parse_args()
    result: dict[str, Any]
    if given.command == "measure":
        result = measure(given.seconds, given.controller)
    elif given.command == "wait-up":
        result = wait_up(given.prefix, given.count, given.timeout)
    elif given.command == "lists":
        result = lists(given.rounds)
    elif given.command == "burst":
        result = burst(given.count, given.at_once, given.name, given.prefix, given.image, given.flavor, given.timeout)
    else:
        result = remove_computes(given.prefix)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
