# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What the module cloud_health found, as lines to read."""

from __future__ import annotations

DOCUMENTATION = r"""
---
name: health_lines
short_description: The result of cloud_health as a table for people
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - Gives one line for each service, agent, hypervisor and server, and the problems at the end.
options:
  _input:
    description: The registered result of the module C(cloud_health).
    type: dict
    required: true
"""

EXAMPLES = r"""
- ansible.builtin.debug:
    msg: "{{ health | health_lines }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A titled table with columns as wide as their contents; the title alone says that there is nothing."""
    cells = [[str(cell) for cell in row] for row in rows]
    if not cells:
        return [f"{title}: none", ""]
    widths = [max(len(row[index]) for row in [list(heads), *cells]) for index in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [heads, *cells]]
    return [title, *(f"  {line.rstrip()}" for line in lines), ""]


def used(hypervisor: Mapping[str, Any], name: str) -> str:
    """Use and size of a hypervisor's resource; a dash where Placement has no inventory of it."""
    return f"{hypervisor[f'{name}_used']}/{hypervisor[name]}" if hypervisor.get(name) else "-"


def health_lines(health: Mapping[str, Any]) -> list[str]:
    """The lines of the report."""
    lines = table(
        "Nova services",
        ("SERVICE", "HOST", "STATE", "STATUS"),
        ((one["binary"], one["host"], one["state"], one["status"]) for one in health.get("services", [])),
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
    problems = [f"  {one['layer']}: {one['message']}" for one in health.get("problems", [])]
    return [*lines, "Problems", *problems] if problems else [*lines, "No problem seen."]


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"health_lines": health_lines}
