# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Limits of numbers and addresses, by the names of variables."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ansible.module_utils.kilonova.preflight.messages import Facts, message
from ansible.module_utils.kilonova.preflight.roles import Known


@dataclass(frozen=True)
class Limits:
    """The least and the greatest value."""

    low: float
    high: float | None = None

    def __str__(self) -> str:
        return f"at least {self.low:g}" if self.high is None else f"from {self.low:g} to {self.high:g}"


NOT_NEGATIVE = Limits(0)
LIMITS = {
    "nova_compute_reserved_memory_mib": NOT_NEGATIVE,
    "preflight_minimum_memory_mib": NOT_NEGATIVE,
    "preflight_minimum_disk_mib": NOT_NEGATIVE,
    "preflight_minimum_disk_deployed_mib": NOT_NEGATIVE,
    # Passwords that are generated must be long enough.
    "keystone_password_length": Limits(1, 32),
    "secrets_certificate_days": Limits(30, 3650),
    # A generated secrets_pki_seed must be long enough.
    "secrets_length": Limits(32, 255),
}
LIMITS_BY_NAME = (
    (re.compile(r"_(workers|threads|connections|timeout|expiration|ttl|seconds|mib)$"), Limits(1)),
    (re.compile(r"_mtu$"), Limits(1280, 9216)),
    (re.compile(r"_port$"), Limits(1, 65535)),
)
# Memory of a service, and the group whose hosts run it.
MEMORY = {
    "mariadb_buffer_pool_mib": "controller",
    "memcached_memory_mib": "controller",
    "rabbitmq_memory_limit_mib": "controller",
    "nova_compute_reserved_memory_mib": "compute",
}
# These are compared with the addresses of the host.
CHECKED_ELSEWHERE = {"cloud_management_address", "ovn_chassis_bridge_address", "ovn_chassis_tunnel_address"}
ADDRESS = re.compile(r"_address$|^bridge_gateway$|^verify_outside_listen$")
NAME_SERVERS = re.compile(r"_(dns|dns_servers|nameservers)$")


def limits_of(name: str) -> Limits:
    """Return the limits of a number by the name of its variable."""
    if name in LIMITS:
        return LIMITS[name]
    return next((limits for pattern, limits in LIMITS_BY_NAME if pattern.search(name)), NOT_NEGATIVE)


def check_numbers(values: Mapping[str, object], known: Known) -> list[str]:
    """Report numbers outside their limits. Zero is allowed where it is the default, and means none or unchanged."""
    found = []
    for name in sorted(values):
        option = known.options.get(name, {})
        if option.get("type") not in ("int", "float"):
            continue
        try:
            number = float(str(values[name]))
        except ValueError:
            continue  # check_types reports it.
        limits, zero = limits_of(name), option.get("default") == 0
        if (zero and number == 0) or limits.low <= number <= (limits.high or float("inf")):
            continue
        instead = f"Write {limits.low:g} or more" if limits.high is None else f"Write a number {limits}"
        if zero:
            instead += ", or 0 to have the default"
        found.append(message(name, values[name], f"this must be {limits}", instead))
    return found


def check_memory_sizes(values: Mapping[str, object], facts: Facts, groups: Iterable[str]) -> list[str]:
    """Report services that are given more memory than the host has."""
    here, have = set(groups), facts["memory_mib"]
    found = []
    for name, group in MEMORY.items():
        text = str(values.get(name, ""))
        if group in here and text.isdigit() and int(text) >= have:
            why = f"this host has {have} MiB of memory"
            found.append(message(name, values[name], why, f"Write a number below {have}"))
    return found


def check_addresses(values: Mapping[str, object], known: Known) -> list[str]:
    """Report addresses that are none."""
    found = []
    for name in sorted(set(values) & set(known.options) - CHECKED_ELSEWHERE):
        value, kind = values[name], known.options[name].get("type", "str")
        if kind == "str" and ADDRESS.search(name) and value:
            found += check_address(name, str(value))
        elif kind == "list" and NAME_SERVERS.search(name) and isinstance(value, list):
            found += [
                message(name, server, "a name server is given by its IP address", "Write an address such as 192.0.2.53")
                for server in value
                if not is_address(str(server))
            ]
    return found


def check_address(name: str, value: str) -> list[str]:
    """Check one IPv4 address, with prefix length where it is that of the bridge."""
    if name == "bridge_address":
        instead, valid = "Write an address such as 192.0.2.10/24", "/" in value and is_interface(value)
        return [] if valid else [message(name, value, "this is not an IPv4 address with prefix length", instead)]
    if is_address(value, ipaddress.IPv4Address):
        return []
    return [message(name, value, "this is not an IPv4 address", "Write an address such as 192.0.2.10")]


def is_address(text: str, kind: type[ipaddress.IPv4Address] | None = None) -> bool:
    """Return whether a text is an IP address."""
    try:
        (kind or ipaddress.ip_address)(text)
    except ValueError:
        return False
    return True


def is_interface(text: str) -> bool:
    """Return whether a text is an IPv4 address with an optional prefix length."""
    try:
        ipaddress.IPv4Interface(text)
    except ValueError:
        return False
    return True
