# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the ports that services of a host need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.kilonova.preflight.messages import Facts


def check_ports(facts: Facts, ports: Iterable[Mapping[str, Any]], groups: Iterable[str]) -> list[str]:
    """Report ports that services of this host need and another process holds."""
    here = set(groups)
    found = []
    for wanted in ports:
        protocol = wanted.get("protocol", "tcp")
        if not here & set(wanted["groups"]):
            continue
        holders: dict[str, str] = {}
        for listener in facts["listeners"]:
            if (listener["port"], listener["protocol"]) != (wanted["port"], protocol):
                continue
            unit = listener["unit"]
            if unit in wanted["units"] or (not listener["process"] and not listener["pid"] and facts["deployed"]):
                continue
            who = listener["process"] or "an unknown process"
            details = ", ".join(
                x for x in (f"PID {listener['pid']}" if listener["pid"] else "", f"unit {unit}" if unit else "") if x
            )
            holders.setdefault(f"{who} ({details})" if details else who, listener["address"])
        for who, address in holders.items():
            found.append(
                f"{protocol.upper()} port {wanted['port']} on {address} is taken by {who}: {wanted['purpose']} needs "
                "it. Stop and disable what "
                "listens there, or move it to another port."
            )
    return found
