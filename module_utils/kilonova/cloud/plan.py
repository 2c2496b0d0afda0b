# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Compare resources of the cloud with the wanted ones. Makes no request."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

HASH_BLOCK = 1024 * 1024
DELETED_STATES = ("DELETED", "SOFT_DELETED")


class PlanError(Exception):
    """The operator has to resolve this: the wanted state is impossible, or reaching it would lose something.

    ``details`` and the logs of ``log_layers`` are shown when the module fails.
    """

    def __init__(self, message: str, details: str = "", layer: str = "", log_layers: tuple[str, ...] = ()) -> None:
        super().__init__(f"{message[:1].upper()}{message[1:]}")
        self.details = details
        self.layer = layer
        self.log_layers = log_layers


@dataclass
class Difference:
    """The fields of a resource that are not as wanted."""

    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.before != self.after


def difference(current: dict[str, Any], wanted: dict[str, Any]) -> Difference:
    """Compare the fields in ``wanted``. None there accepts any value."""
    result = Difference()
    for name, value in wanted.items():
        if value is not None and current.get(name) != value:
            result.before[name] = current.get(name)
            result.after[name] = value
    return result


def the_one(kind: str, name: str, found: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the only resource of a name, or None. PlanError when the name is ambiguous."""
    if len(found) > 1:
        ids = ", ".join(sorted(str(item["id"]) for item in found))
        raise PlanError(
            f"there are {len(found)} of the {kind} '{name}' in the project ({ids}). Delete or rename all but one."
        )
    return found[0] if found else None


# Flavors


def find_flavor(flavors: Iterable[dict[str, Any]], wanted: dict[str, Any]) -> dict[str, Any] | None:
    """Return the flavor with the wanted name and id, or None. PlanError when others have them."""
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
    """Translate Nova's flavor to the options of cloud_resources. MiB of memory and swap, GiB of disk."""
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
    """Return the extra specs that differ. PlanError when a size differs, which Nova cannot change."""
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
    """Return a file's digest as hex."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as stream:
        while block := stream.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def image_content_differs(image: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Return why the file has to be uploaded again; empty when the image has its content."""
    for name in ("disk_format", "container_format"):
        if image.get(name) != wanted[name]:
            return f"its {name} is {image.get(name)}, wanted {wanted[name]}"
    algorithm, value = image.get("os_hash_algo"), image.get("os_hash_value")
    if not algorithm or not value:
        return "Glance has no hash of it"
    if file_digest(wanted["path"], algorithm) != value:
        return f"{wanted['path']} has a different {algorithm} than the image"
    return ""


def image_difference(image: dict[str, Any], wanted: dict[str, Any]) -> Difference:
    """Return the fields and properties that differ and need no upload."""
    fields: dict[str, Any] = {name: wanted[name] for name in ("visibility", "min_disk", "min_ram")}
    fields |= {name: str(value) for name, value in (wanted["properties"] or {}).items()}
    return difference(image, fields)


def image_patch(image: dict[str, Any], changes: Difference) -> list[dict[str, Any]]:
    """Return the JSON patch for a difference. Glance wants add for a new property, replace for an existing one."""
    return [
        {"op": "replace" if name in image else "add", "path": f"/{_pointer(name)}", "value": value}
        for name, value in changes.after.items()
    ]


def _pointer(name: str) -> str:
    """Escape a name for a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


# Networks


def subnet_gateway(wanted: dict[str, Any]) -> str | None:
    """Return the gateway: the given address, by default the first of the range, None for 'none'."""
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
    """Return the ranges for guests: the first ``size`` addresses without the gateway and the excluded ones."""
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
    """Return the changeable fields of a wanted subnet, as Neutron names them."""
    return {
        "name": wanted["name"],
        "gateway_ip": subnet_gateway(wanted),
        "enable_dhcp": wanted["dhcp"],
        "dns_nameservers": list(wanted["dns_servers"] or []),
        "allocation_pools": allocation_pools(wanted),
    }


def subnet_difference(subnet: dict[str, Any], wanted: dict[str, Any]) -> Difference:
    """Return the fields of a subnet that differ. A gateway of None is wanted, not left open."""
    # Neutron returns the pools in any order.
    pools = sorted(subnet["allocation_pools"], key=lambda pool: int(ipaddress.IPv4Address(pool["start"])))
    result = difference(subnet | {"allocation_pools": pools}, subnet_fields(wanted))
    gateway = subnet_gateway(wanted)
    if gateway is None and subnet.get("gateway_ip") is not None:
        result.before["gateway_ip"], result.after["gateway_ip"] = subnet["gateway_ip"], None
    return result


def network_fields(wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the changeable fields of a wanted network, as Neutron names them."""
    return {
        "shared": wanted["shared"],
        "router:external": wanted["external"],
        "port_security_enabled": wanted["port_security"],
        "mtu": wanted["mtu"] or None,
    }


def network_provider(wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a wanted network that cannot be changed later."""
    return {
        "provider:network_type": wanted["type"],
        "provider:physical_network": wanted["physical_network"] or None,
        "provider:segmentation_id": wanted["segmentation_id"],
    }


def network_difference(network: dict[str, Any], wanted: dict[str, Any]) -> Difference:
    """Return the changeable fields that differ. PlanError when another one differs."""
    fixed = difference(network, network_provider(wanted))
    if fixed:
        listed = "; ".join(f"{name} is {fixed.before[name]}, wanted {fixed.after[name]}" for name in fixed.after)
        raise PlanError(
            f"the network '{wanted['name']}' differs ({listed}), and Neutron cannot change that. Delete the network "
            "with its servers, or describe it as it is."
        )
    return difference(network, network_fields(wanted))


def find_subnet(subnets: Iterable[dict[str, Any]], wanted: dict[str, Any]) -> dict[str, Any] | None:
    """Return the subnet of the wanted range, or None. PlanError when one of that name has another range."""
    subnets = list(subnets)
    namesake = next((one for one in subnets if one["name"] == wanted["name"]), None)
    found = next((one for one in subnets if one["cidr"] == wanted["cidr"]), None)
    if found is None and namesake is not None:
        raise PlanError(
            f"the subnet '{wanted['name']}' has the range {namesake['cidr']}, wanted is {wanted['cidr']}, and Neutron "
            "cannot change that. Delete the subnet with its servers, or keep fixed_range as it was."
        )
    return found


def _network(cidr: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise PlanError(f"'{cidr}' is not an IPv4 network: {error}. Write it like 192.168.1.0/24.") from error


def _excluded(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Parse an address with or without prefix length."""
    try:
        return ipaddress.ip_interface(text).ip
    except ValueError as error:
        raise PlanError(f"the excluded '{text}' is not an address: {error}.") from error


# Security group rules


def rule_fields(wanted: dict[str, Any]) -> dict[str, Any]:
    """Return a wanted rule as Neutron describes it."""
    return {
        "direction": wanted["direction"],
        "ethertype": wanted["ethertype"],
        "protocol": None if wanted["protocol"] == "any" else wanted["protocol"],
        "port_range_min": wanted["port_min"],
        "port_range_max": wanted["port_max"] if wanted["port_max"] is not None else wanted["port_min"],
        "remote_ip_prefix": wanted["remote"] or None,
    }


def rule_exists(rules: Iterable[dict[str, Any]], wanted: dict[str, Any]) -> bool:
    """Return whether an equivalent rule exists. ``0.0.0.0/0`` and no remote mean the same."""
    return _rule_key(rule_fields(wanted)) in {
        _rule_key(rule) for rule in rules if not rule.get("remote_group_id") and not rule.get("remote_address_group_id")
    }


def rule_text(wanted: dict[str, Any]) -> str:
    """Return the rule for a message: ``ingress tcp 22 from 0.0.0.0/0 (IPv4)``."""
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
    """Return whether two OpenSSH public keys are equal, apart from their comments."""
    return one.split()[:2] == other.split()[:2]


def public_key_problem(text: str) -> str:
    """Return why the text is not an OpenSSH public key; empty when it is one."""
    words = text.split()
    if len(words) < 2 or not words[1].startswith("AAAA"):
        return "it is not an OpenSSH public key ('ssh-ed25519 AAAA... comment')"
    return ""


# Servers


def server_action(server: dict[str, Any] | None) -> str:
    """Return what to do about a server: create, keep, wait, recreate or report.

    A server in ERROR that never ran holds no data and is recreated. One that ran may hold data, so the operator
    decides.
    """
    if server is None or server["status"] in DELETED_STATES:
        return "create"
    if server["status"] == "BUILD":
        return "wait"
    if server["status"] == "ERROR":
        return "report" if server.get("OS-SRV-USG:launched_at") else "recreate"
    return "keep"
