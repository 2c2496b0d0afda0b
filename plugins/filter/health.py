# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters that format the results of cloud_health and unit_check for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return the lines of a table with a title."""
    cells = [[str(cell) for cell in row] for row in rows]
    if not cells:
        return [f"{title}: none", ""]
    widths = [max(len(row[index]) for row in [list(heads), *cells]) for index in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [heads, *cells]]
    return [title, *(f"  {line.rstrip()}" for line in lines), ""]


def used(hypervisor: Mapping[str, Any], name: str) -> str:
    """Return USED/TOTAL of a resource of a hypervisor, or a dash if Placement has no inventory of it."""
    return f"{hypervisor[f'{name}_used']}/{hypervisor[name]}" if hypervisor.get(name) else "-"


def health_lines(health: Mapping[str, Any]) -> list[str]:
    """Return the lines of the report."""
    if "problems" not in health:
        return ["The APIs do not answer", *(f"  {line}" for line in str(health.get("msg", "")).splitlines())]
    lines = table(
        "Nova services",
        ("SERVICE", "HOST", "STATE", "STATUS"),
        ((one["binary"], one["host"], one["state"], one["status"]) for one in health.get("services", [])),
    )
    if health.get("volume_services") is not None:
        lines += table(
            "Cinder services",
            ("SERVICE", "HOST", "STATE", "STATUS"),
            ((one["binary"], one["host"], one["state"], one["status"]) for one in health["volume_services"]),
        )
    lines += table(
        "Neutron agents",
        ("AGENT", "HOST", "ALIVE"),
        ((one["type"], one["host"], "yes" if one["alive"] else "no") for one in health.get("agents", [])),
    )
    lines += table(
        "Hypervisors",
        ("HOST", "TYPE", "STATE", "GUESTS", "VCPUS", "RAM MiB"),
        (
            (one["name"], one["type"], one["state"], one["servers"], used(one, "vcpus"), used(one, "ram"))
            for one in health.get("hypervisors", [])
        ),
    )
    lines += table(
        "Images",
        ("IMAGE", "STATUS", "VISIBILITY", "SIZE MiB"),
        (
            (one["name"], one["status"], one["visibility"], (one["size"] or 0) // 2**20)
            for one in health.get("images", [])
        ),
    )
    lines += table(
        "Servers of the project",
        ("SERVER", "STATUS", "HOST", "ADDRESSES", "FLAVOR"),
        (
            (
                one["name"],
                one["status"],
                one["host"] or "-",
                ", ".join(interface["address"] for interface in one["interfaces"]) or "-",
                one["flavor"]["name"],
            )
            for one in health.get("servers", [])
        ),
    )
    problems = [f"  {one['layer']}: {one['message']}" for one in health["problems"]]
    return [*lines, "Problems", *problems] if problems else [*lines, "No problem seen."]


def units_found(hostvars: Mapping[str, Mapping[str, Any]], hosts: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """Return what unit_check found, by host; hosts that it did not look at are left out."""
    return {host: hostvars[host]["verify_units"] for host in hosts if "verify_units" in hostvars[host]}


def unit_lines(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return lines about the broken units of all hosts: what mends each, then their logs."""
    broken = [(host, unit) for host, result in results.items() for unit in result.get("broken", [])]
    failed = [
        f"- {host}: {result['msg']}"
        for host, result in results.items()
        if result.get("failed") or result.get("unreachable")
    ]
    lines = [f"- {host}: {one['unit']} ({one['title']}) {one['reason']}: {one['command']}" for host, one in broken]
    return failed + lines + [line for host, one in broken for line in (f"=== {host}", *one["log"].splitlines())]


def holder_lines(results: Mapping[str, Mapping[str, Any]], addresses: Sequence[str]) -> list[str]:
    """Return a line for each address that no host has, or more than one."""
    holders = {
        address: [host for host, result in results.items() if address in result.get("held", [])]
        for address in addresses
    }
    return [
        f"- {address}: held by {', '.join(hosts) or 'no controller'}, and it has to be held by one: systemctl status "
        "keepalived, and journalctl -u keepalived, on all controllers"
        for address, hosts in holders.items()
        if len(hosts) != 1
    ]


def maintenance_lines(hostvars: Mapping[str, Mapping[str, Any]], hosts: Iterable[str], path: str) -> list[str]:
    """Return a line for each host in maintenance, where this file is: how that ends."""
    return [
        f"- {host} is in maintenance and gets no requests, until: ansible-playbook "
        f"playbooks/controller-maintenance.yml --limit {host} -e maintenance=end"
        for host in hosts
        if path in hostvars[host].get("preflight_facts", {}).get("present", [])
    ]


def certificate_lines(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line for each kind of certificate: how many days are left, and on which host the fewest."""
    least: dict[str, tuple[int, str]] = {}
    for host, result in results.items():
        for one in result.get("certificates", []):
            least[one["title"]] = min(least.get(one["title"], (one["days"], host)), (one["days"], host))
    return [f"Certificate of {title}: {days} days left ({host})" for title, (days, host) in sorted(least.items())]


def storage_lines(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the lines of the report on the store, from the first host that a quorum answered."""
    given = [one for one in results if "status" in one]
    if not given:
        return []
    health = next((one for one in given if one["status"] != "unknown"), given[0])
    down = [f"osd.{one['number']} of {one['host']}" for one in health["osds"] if not one["up"]]
    away = [one["name"] for one in health["monitors"] if not one["up"]]
    lines = [f"Store: {health['status']}, {health['used_percent']} % full"]
    lines += [f"  {line}" for text in [*health["problems"], *health["notes"]] for line in text.splitlines()]
    lines += [f"  down: {', '.join(down)}"] if down else []
    lines += [f"  monitors not in the quorum: {', '.join(away)}"] if away else []
    return [
        *lines,
        "",
        *table(
            "Pools",
            ("POOL", "STORED MiB", "FITS MiB"),
            ((one["name"], one["stored_mib"], one["available_mib"]) for one in health["pools"]),
        ),
        *table(
            "OSDs",
            ("OSD", "HOST", "UP", "IN"),
            (
                (one["number"], one["host"], *("yes" if one[key] else "no" for key in ("up", "in")))
                for one in health["osds"]
            ),
        ),
    ]


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "certificate_lines": certificate_lines,
            "health_lines": health_lines,
            "holder_lines": holder_lines,
            "maintenance_lines": maintenance_lines,
            "storage_lines": storage_lines,
            "unit_lines": unit_lines,
            "units_found": units_found,
        }
