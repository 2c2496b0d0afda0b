# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters for what preflight knows of hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def facts_by_host(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Return a fact of each host, None for a host that preflight has not reached."""
    return {host: (hostvars[host].get("preflight_facts") or {}).get(name) for host in hosts}


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"facts_by_host": facts_by_host}
