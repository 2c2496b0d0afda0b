# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What has to change in the cloud: comparisons without any request."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

HASH_BLOCK = 1024 * 1024
DELETED_STATES = ("DELETED", "SOFT_DELETED")


class PlanError(Exception):
    """What is wanted contradicts itself, or differs from what exists in a way that must not be repaired silently."""


@dataclass
class Difference:
    """The fields of one thing that are not as wanted."""

    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.before != self.after


def difference(current: dict[str, Any], wanted: dict[str, Any]) -> Difference:
    """Compare the fields that ``wanted`` names; None in ``wanted`` means that the field does not matter."""
    result = Difference()
    for name, value in wanted.items():
        if value is not None and current.get(name) != value:
            result.before[name] = current.get(name)
            result.after[name] = value
    return result


def the_one(kind: str, name: str, found: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The only thing of a name, None where there is none. PlanError when the name is ambiguous."""
    if len(found) > 1:
        ids = ", ".join(sorted(str(item["id"]) for item in found))
        raise PlanError(
            f"there are {len(found)} of the {kind} '{name}' in the project ({ids}). Delete or rename all but one."
        )
    return found[0] if found else None


# Flavors


def find_flavor(flavors: Iterable[dict[str, Any]], wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The flavor that has the wanted name and id, None when both are free. PlanError when they belong to others."""
    flavors = list(flavors)
    by_name = next((one for one in flavors if one["name"] == wanted["name"]), None)
    by_id = next((one for one in flavors if one["id"] == wanted["id"]), None)
    if by_name and wanted["id"] is not None and by_name["id"] != wanted["id"]:
        raise PlanError(
            f"the flavor '{wanted['name']}' has the id '{by_name['id']}', wanted is '{wanted['id']}', and Nova cannot "
            "change it. Delete the flavor (servers keep their copy of it): openstack flavor delete "
            f"{by_name['id']}; or describe it with that id."
        )
    if by_id and by_id["name"] != wanted["name"]:
        raise PlanError(
            f"the flavor id '{wanted['id']}', wanted for '{wanted['name']}', belongs to the flavor '{by_id['name']}'. "
            f"Delete that one or choose another id."
        )
    return by_name


def flavor_fields(flavor: dict[str, Any]) -> dict[str, Any]:
    """Nova's answer about a flavor in this project's words. Sizes: MiB of memory and swap, GiB of disk."""
    return {
        "vcpus": flavor["vcpus"],
        "ram": flavor["ram"],
        "disk": flavor["disk"],
        "swap": int(flavor.get("swap") or 0),
        "ephemeral": flavor.get("OS-FLV-EXT-DATA:ephemeral", 0),
        "public": flavor.get("os-flavor-access:is_public", True),
        "extra_specs": flavor.get("extra_specs") or {},
    }


def flavor_difference(flavor: dict[str, Any], wanted: dict[str, Any]) -> Difference:
    """The extra specs that differ. PlanError when a size differs, which Nova cannot change."""
    sizes = {name: wanted[name] for name in ("vcpus", "ram", "disk", "swap", "ephemeral", "public")}
    fixed = difference(flavor_fields(flavor), sizes)
    if fixed:
        listed = "; ".join(f"{name} is {fixed.before[name]}, wanted {fixed.after[name]}" for name in fixed.after)
        raise PlanError(
            f"the flavor '{wanted['name']}' differs ({listed}), and Nova cannot change a flavor. Delete it (servers "
            f"keep their copy of it): openstack flavor delete {flavor['id']}; or describe it as it is."
        )
    return difference(flavor_fields(flavor), {"extra_specs": wanted.get("extra_specs")})


# Images


def file_digest(path: str, algorithm: str) -> str:
    """The file's digest as hex. OSError where it cannot be read, ValueError for an unknown algorithm."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as stream:
        while block := stream.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def image_content_differs(image: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Why the image's data has to be uploaded anew; empty when it is what the file holds."""
    for name in ("disk_format", "container_format"):
        if image.get(name) != wanted[name]:
            return f"its {name} is {image.get(name)}, wanted {wanted[name]}"
    algorithm, value = image.get("os_hash_algo"), image.get("os_hash_value")
    if not algorithm or not value:
        return "Glance has no hash of it"
    if file_digest(wanted["path"], algorithm) != value:
        return f"{wanted['path']} has another {algorithm} than the image"
    return ""


def image_difference(image: dict[str, Any], wanted: dict[str, Any]) -> Difference:
    """Fields and properties that can be changed without another upload."""
    fields: dict[str, Any] = {name: wanted[name] for name in ("visibility", "min_disk", "min_ram")}
    fields |= {name: str(value) for name, value in (wanted["properties"] or {}).items()}
    return difference(image, fields)


def image_patch(image: dict[str, Any], changes: Difference) -> list[dict[str, Any]]:
    """The JSON patch that brings about a difference (Glance: add for a new property, replace for an old one)."""
    return [
        {"op": "replace" if name in image else "add", "path": f"/{_pointer(name)}", "value": value}
        for name, value in changes.after.items()
    ]


def _pointer(name: str) -> str:
    """A name as part of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


# Networks


def subnet_gateway(wanted: dict[str, Any]) -> str | None:
    """The gateway: the address given, the range's first one for an empty text, None for 'none'."""
    network = _network(wanted["cidr"])
    gateway = wanted["gateway"]
    if gateway == "none":
        return None
    if not gateway:
        return str(network[1])
    address = ipaddress.IPv4Address(gateway)
    if address not in network:
        raise PlanError(f"the gateway {gateway} is outside of {network}; choose an address of that range.")
    return str(address)


def allocation_pools(wanted: dict[str, Any]) -> list[dict[str, str]]:
    """The ranges that guests get addresses from: the first ``size`` addresses without the gateway and the excluded."""
    network = _network(wanted["cidr"])
    usable = network.num_addresses - 2
    if usable < 2:
        raise PlanError(f"{network} has no room for a gateway and a guest; use a /29 or larger.")
    first = int(network.network_address) + 1
    size = wanted["size"] or usable
    if size < 2:
        raise PlanError(f"{size} addresses leave none for guests beside the gateway; use at least 2.")
    last = first + min(size, usable) - 1
    excluded = [_excluded(text) for text in wanted["exclude"] or []]
    taken = {int(address) for address in excluded if address.version == 4}
    gateway = subnet_gateway(wanted)
    if gateway:
        taken.add(int(ipaddress.IPv4Address(gateway)))
    pools: list[dict[str, str]] = []
    start = first
    for address in [*sorted(one for one in taken if first <= one <= last), last + 1]:
        if start < address:
            pools.append({"start": str(ipaddress.IPv4Address(start)), "end": str(ipaddress.IPv4Address(address - 1))})
        start = address + 1
    if not pools:
        raise PlanError(f"the gateway and the excluded addresses leave no address of {network} for guests.")
    return pools


def subnet_fields(wanted: dict[str, Any]) -> dict[str, Any]:
    """A wanted subnet in Neutron's fields; those that may be changed later."""
    return {
        "name": wanted["name"],
        "gateway_ip": subnet_gateway(wanted),
        "enable_dhcp": wanted["dhcp"],
        "dns_nameservers": list(wanted["dns_servers"] or []),
        "allocation_pools": allocation_pools(wanted),
    }


def subnet_difference(subnet: dict[str, Any], wanted: dict[str, Any]) -> Difference:
    """The fields of a subnet that are not as wanted. A gateway of None is a wish here, not an omission."""
    # Neutron answers the pools in no particular order.
    pools = sorted(subnet["allocation_pools"], key=lambda pool: int(ipaddress.IPv4Address(pool["start"])))
    result = difference(subnet | {"allocation_pools": pools}, subnet_fields(wanted))
    gateway = subnet_gateway(wanted)
    if gateway is None and subnet.get("gateway_ip") is not None:
        result.before["gateway_ip"], result.after["gateway_ip"] = subnet["gateway_ip"], None
    return result


def network_fields(wanted: dict[str, Any]) -> dict[str, Any]:
    """A wanted network in Neutron's fields; those that may be changed later."""
    return {
        "shared": wanted["shared"],
        "router:external": wanted["external"],
        "port_security_enabled": wanted["port_security"],
        "mtu": wanted["mtu"] or None,
    }


def network_provider(wanted: dict[str, Any]) -> dict[str, Any]:
    """The fields that a network keeps for life."""
    return {
        "provider:network_type": wanted["type"],
        "provider:physical_network": wanted["physical_network"] or None,
        "provider:segmentation_id": wanted["segmentation_id"],
    }


def network_difference(network: dict[str, Any], wanted: dict[str, Any]) -> Difference:
    """The fields that differ and can be changed. PlanError where one differs that cannot."""
    fixed = difference(network, network_provider(wanted))
    if fixed:
        listed = "; ".join(f"{name} is {fixed.before[name]}, wanted {fixed.after[name]}" for name in fixed.after)
        raise PlanError(
            f"the network '{wanted['name']}' differs ({listed}), and Neutron cannot change that. Delete the network "
            "with its servers, or describe it as it is."
        )
    return difference(network, network_fields(wanted))


def _network(cidr: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise PlanError(f"'{cidr}' is not an IPv4 network: {error}. Write it like 192.168.1.0/24.") from error


def _excluded(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address, with or without the length of its prefix, as a host's interfaces have it."""
    try:
        return ipaddress.ip_interface(text).ip
    except ValueError as error:
        raise PlanError(f"'{text}', which no guest may get, is not an address: {error}.") from error


# Security group rules


def rule_fields(wanted: dict[str, Any]) -> dict[str, Any]:
    """A wanted rule in Neutron's fields."""
    return {
        "direction": wanted["direction"],
        "ethertype": wanted["ethertype"],
        "protocol": None if wanted["protocol"] == "any" else wanted["protocol"],
        "port_range_min": wanted["port_min"],
        "port_range_max": wanted["port_max"] if wanted["port_max"] is not None else wanted["port_min"],
        "remote_ip_prefix": wanted["remote"] or None,
    }


def rule_exists(rules: Iterable[dict[str, Any]], wanted: dict[str, Any]) -> bool:
    """Whether a rule of exactly this meaning is there. ``0.0.0.0/0`` and no remote at all mean the same."""
    return _rule_key(rule_fields(wanted)) in {
        _rule_key(rule) for rule in rules if not rule.get("remote_group_id") and not rule.get("remote_address_group_id")
    }


def rule_text(wanted: dict[str, Any]) -> str:
    """The rule for a message: ``ingress tcp 22 from 0.0.0.0/0``."""
    fields = rule_fields(wanted)
    low, high = fields["port_range_min"], fields["port_range_max"]
    ports = "" if low is None else f" {low}" if low == high else f" {low}-{high}"
    side = "from" if wanted["direction"] == "ingress" else "to"
    remote = wanted["remote"] or "anywhere"
    return f"{wanted['direction']} {wanted['protocol']}{ports} {side} {remote} ({wanted['ethertype']})"


def _rule_key(fields: dict[str, Any]) -> tuple[Any, ...]:
    remote = fields.get("remote_ip_prefix")
    names = ("direction", "ethertype", "protocol", "port_range_min", "port_range_max")
    return (*(fields.get(name) for name in names), None if remote in ("0.0.0.0/0", "::/0") else remote)


# Keypairs


def same_key(one: str, other: str) -> bool:
    """Whether two OpenSSH public keys are the same key; the comment does not count."""
    return one.split()[:2] == other.split()[:2]


def public_key_problem(text: str) -> str:
    """What is wrong with the text as an OpenSSH public key; empty when nothing is."""
    words = text.split()
    if len(words) < 2 or not words[1].startswith("AAAA"):
        return "it is not an OpenSSH public key ('ssh-ed25519 AAAA... comment')"
    return ""


# Servers


def server_action(server: dict[str, Any] | None) -> str:
    """What to do about a server: create, keep, wait, recreate or report.

    A server in ERROR that was never launched holds nothing of anybody's: it is made anew. One that ran before may hold
    data, so a human decides.
    """
    if server is None or server["status"] in DELETED_STATES:
        return "create"
    if server["status"] == "BUILD":
        return "wait"
    if server["status"] == "ERROR":
        return "report" if server.get("OS-SRV-USG:launched_at") else "recreate"
    return "keep"
