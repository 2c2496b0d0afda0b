# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Put a Linux bridge over an interface in the files of ifupdown, and compare the kernel with the result.

Functions over texts; they neither read nor write a host. Stanzas of other interfaces keep their bytes. The options are
those of bridge-utils-interfaces(5): ``bridge_hw`` names the port whose MAC address the bridge takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ansible.module_utils.kilonova.network.interfaces import ALLOW, Block, InterfacesError, cidrs, normal, parse

BEGIN = "# BEGIN Kilonova, role bridge: written by every run. Change its variables, not this section."
END = "# END Kilonova"
GATEWAY_MARK = "# Kilonova: gateway of fixed_range, for as long as fixed_gateway is empty"
INDENT = "    "

# Options of the bridge that are always overwritten.
OURS = {"bridge_ports", "bridge_stp", "bridge_fd", "bridge_maxwait", "bridge_hw", "mtu"}
# Options of the hardware, which stay with the port.
HARDWARE = re.compile(r"^(hwaddress$|ethernet-|link-|hardware-|offload-|wpa-|wireless-|bond-|vlan-)")
COMMANDS = {"pre-up", "up", "post-up", "down", "pre-down", "post-down"}
WIRE_COMMAND = re.compile(r"\b(ethtool|mii-tool|iwconfig|ifconfig)\b|\bip\s+(-\S+\s+)*l(ink|i)?\s")
ROUTING_COMMAND = re.compile(r"\bip\s+(-\S+\s+)*(r(oute)?|a(ddr(ess)?)?|ru(le)?|n(eigh)?)\s")


@dataclass
class Wanted:
    """The wanted bridge."""

    interface: str
    bridge: str
    method: str = "auto"
    address: str = ""
    gateway: str = ""
    dns: list[str] = field(default_factory=list)
    mtu: int = 0
    gateway_address: str = ""
    moving_addresses: list[str] = field(default_factory=list)
    veth: bool = False

    @property
    def veth_bridge(self) -> str:
        """Return the end of the veth pair that is a port of the bridge."""
        return f"{self.bridge}-ovs"

    @property
    def veth_ovs(self) -> str:
        """Return the end of the veth pair for Open vSwitch."""
        return f"ovs-{self.bridge}"


@dataclass
class Plan:
    """The wanted files, and the state of the kernel once they are applied."""

    files: dict[str, str]
    addresses: list[str]
    dhcp: bool
    mtu: int
    ports: list[str]
    up: list[str]


def is_gateway(block: Block) -> bool:
    """Return whether this stanza was added for the gateway of fixed_range."""
    return GATEWAY_MARK in block.raw


def for_bridge(command: str, wanted: Wanted) -> str:
    """Return a command of the interface for the bridge, which takes over routes and addresses."""
    if not ROUTING_COMMAND.search(command):
        return command
    return re.sub(rf"\bdev\s+{re.escape(wanted.interface)}(?![\w.:-])", f"dev {wanted.bridge}", command)


def stays_on_wire(option: str, value: str, wanted: Wanted) -> bool:
    """Return whether an option stays with the interface when its addresses move to the bridge."""
    if HARDWARE.match(option):
        return True
    names = re.search(rf"(?<![\w.:-]){re.escape(wanted.interface)}(?![\w.:-])|\$IFACE|\$\{{IFACE\}}", value)
    return option in COMMANDS and bool(WIRE_COMMAND.search(value)) and bool(names)


def stanza(name: str, family: str, method: str, options: Iterable[tuple[str, str]], mark: str = "") -> str:
    """Return the text of an iface stanza."""
    lines = [f"iface {name} {family} {method}"]
    if mark:
        lines.append(f"{INDENT}{mark}")
    lines += [f"{INDENT}{key} {value}".rstrip() for key, value in options]
    return "\n".join(lines) + "\n"


def addressed_stanzas(blocks: list[Block], wanted: Wanted) -> list[Block]:
    """Return the stanzas whose addresses the bridge takes over."""
    bridge = [b for b in blocks if b.kind == "iface" and b.names == [wanted.bridge] and not is_gateway(b)]
    wire = [b for b in blocks if b.kind == "iface" and b.names == [wanted.interface]]
    wire_addressed = [b for b in wire if b.method not in ("manual", "")]
    for block in bridge:
        others = set(block.option("bridge_ports").split()) - {wanted.interface, wanted.veth_bridge, "none"}
        if others:
            raise InterfacesError(
                f"bridge {wanted.bridge} exists with other ports ({', '.join(sorted(others))}) than "
                f"flat_interface = {wanted.interface}. Name another bridge in flat_network_bridge, or one of these "
                "ports in flat_interface"
            )
    if bridge and wire_addressed and any(b.method != "manual" for b in bridge):
        raise InterfacesError(
            f"both {wanted.interface} and {wanted.bridge} have addresses in the file. Keep those of one of the two, "
            "then run again"
        )
    if bridge and not wire_addressed:
        return bridge
    return wire_addressed


def bridge_stanzas(blocks: list[Block], wanted: Wanted, mtu: int) -> tuple[list[str], list[str], bool]:
    """Return the bridge's stanzas, its addresses, and whether one of them is by DHCP over IPv4."""
    first = [
        ("bridge_ports", " ".join([wanted.interface, *([wanted.veth_bridge] if wanted.veth else [])])),
        ("bridge_stp", "off"),
        ("bridge_fd", "0"),
        ("bridge_maxwait", "0"),
        ("bridge_hw", wanted.interface),
        *([("mtu", str(mtu))] if mtu else []),
    ]
    found = addressed_stanzas(blocks, wanted)
    ready: list[tuple[str, str, list[tuple[str, str]]]] = []
    if wanted.method == "static":
        options = [("address", wanted.address)]
        options += [("gateway", wanted.gateway)] if wanted.gateway else []
        options += [("dns-nameservers", " ".join(wanted.dns))] if wanted.dns else []
        ready.append(("inet", "static", options))
    elif wanted.method in ("dhcp", "manual"):
        ready.append(("inet", wanted.method, []))
    for block in found:
        if block.family == "inet" and wanted.method != "auto":
            continue
        options = [
            (key, for_bridge(value, wanted) if key in COMMANDS else value)
            for key, value in block.options
            if normal(key) not in OURS and not stays_on_wire(key, value, wanted)
        ]
        ready.append((block.family, block.method, options))
    if not ready:
        ready.append(("inet", "manual", []))
    texts: list[str] = []
    addresses: list[str] = []
    for number, (family, method, options) in enumerate(ready):
        text = stanza(wanted.bridge, family, method, [*first, *options] if number == 0 else options)
        texts.append(text)
        addresses += cidrs(parse(text)[0])
    dhcp = any((family, method) == ("inet", "dhcp") for family, method, _ in ready)
    if wanted.gateway_address and wanted.gateway_address not in addresses:
        texts.append(stanza(wanted.bridge, "inet", "static", [("address", wanted.gateway_address)], GATEWAY_MARK))
        addresses.append(wanted.gateway_address)
    return texts, addresses, dhcp


def wire_stanza(blocks: list[Block], wanted: Wanted, mtu: int) -> str:
    """Return the stanza of the interface: without addresses, with options of the hardware."""
    options: list[tuple[str, str]] = [("mtu", str(mtu))] if mtu else []
    for block in blocks:
        if block.kind == "iface" and block.names == [wanted.interface]:
            for key, value in block.options:
                keep = key != "mtu" and (block.method == "manual" or stays_on_wire(key, value, wanted))
                if keep and (key, value) not in options:
                    options.append((key, value))
    return stanza(wanted.interface, "inet", "manual", options)


def veth_stanza(wanted: Wanted, mtu: int) -> str:
    """Return the stanza of the veth pair, which survives ifdown so that Open vSwitch keeps its port."""
    here, there = wanted.veth_bridge, wanted.veth_ovs
    size = f"mtu {mtu} " if mtu else ""
    return stanza(
        here,
        "inet",
        "manual",
        [
            *([("mtu", str(mtu))] if mtu else []),
            ("pre-up", f"ip link show dev {here} >/dev/null 2>&1 || ip link add {here} type veth peer name {there}"),
            ("up", f"ip link set dev {there} {size}up"),
        ],
    )


def without(blocks: list[Block], own: set[str]) -> tuple[str, int | None]:
    """Return the text without stanzas of these interfaces and our marks, and the offset of the first one."""
    text = ""
    place: int | None = None
    for block in blocks:
        raw = block.raw
        own_names = set(block.names) & own
        if block.kind == "iface" and own_names:
            raw = ""
        elif ALLOW.match(block.kind) and own_names:
            rest = [name for name in block.names if name not in own]
            raw = f"{block.kind} {' '.join(rest)}\n" if rest else ""
        elif block.kind == "text" and BEGIN in raw:
            head, _, tail = raw.partition(BEGIN)
            text, raw = text + head, tail.lstrip("\n").replace(END, "")
            place = len(text) if place is None else place
            own_names = set()
        elif block.kind == "text" and END in raw:
            raw = raw.replace(END, "")
        if own_names and place is None:
            place = len(text)
        text += raw
    return text, place


def section(parsed: list[Block], wanted: Wanted, mtu: int) -> tuple[str, list[str], bool]:
    """Return the managed section, the addresses of the bridge in it, and whether it uses DHCP."""
    stanzas, addresses, dhcp = bridge_stanzas(parsed, wanted, mtu)
    parts = [f"auto {wanted.interface}\n{wire_stanza(parsed, wanted, mtu)}"]
    if wanted.veth:
        parts.append(f"auto {wanted.veth_bridge}\n{veth_stanza(wanted, mtu)}")
    parts.append(f"auto {wanted.bridge}\n{stanzas[0]}")
    parts += stanzas[1:]
    return BEGIN + "\n" + "\n".join(parts) + END + "\n", addresses, dhcp


def wanted_mtu(parsed: list[Block], wanted: Wanted, kernel_mtu: int) -> int:
    """Return the MTU to write: as given, as in the files, or as the interface has; 0 for the usual 1500."""
    if wanted.mtu:
        return wanted.mtu
    mine = [
        b for b in parsed if b.kind == "iface" and b.names[0] in (wanted.interface, wanted.bridge) and not is_gateway(b)
    ]
    for block in mine:
        if block.option("mtu").isdigit():
            return int(block.option("mtu"))
    if any(b.names == [wanted.bridge] for b in mine):
        return 0
    return 0 if kernel_mtu in (0, 1500) else kernel_mtu


def plan(files: dict[str, str], main: str, wanted: Wanted, kernel_mtu: int = 0) -> Plan:
    """Return the files with the bridge in them; the section goes into ``main``."""
    try:
        parsed = {path: parse(text) for path, text in files.items()}
    except InterfacesError as error:
        raise InterfacesError(f"{main} or a file it sources: {error}") from error
    everything = [block for blocks in parsed.values() for block in blocks]
    mtu = wanted_mtu(everything, wanted, kernel_mtu)
    text, addresses, dhcp = section(everything, wanted, mtu)
    own = {wanted.interface, wanted.bridge, wanted.veth_bridge}
    result: dict[str, str] = {}
    for path, blocks in parsed.items():
        rest, place = without(blocks, own)
        if path != main:
            result[path] = rest if place is not None else files[path]
            continue
        if place is None:
            # Before the first source line: sourced files may need the bridge.
            head = re.search(r"^[ \t]*source(-directory)?\b", rest, re.MULTILINE)
            place = head.start() if head else len(rest)
        before, after = rest[:place].rstrip("\n"), rest[place:].strip("\n")
        result[path] = (before + "\n\n" if before else "") + text + ("\n" + after + "\n" if after else "")
    ports = [wanted.interface, *([wanted.veth_bridge] if wanted.veth else [])]
    # VLANs of the interface lose their routes while it is down.
    children = [
        block.names[0]
        for block in everything
        if block.kind == "iface"
        and (block.names[0].startswith(f"{wanted.interface}.") or block.option("vlan-raw-device") == wanted.interface)
    ]
    up = [*ports, wanted.bridge, *dict.fromkeys(children)]
    return Plan(files=result, addresses=addresses, dhcp=dhcp, mtu=mtu, ports=ports, up=up)


def hands_over(files: dict[str, str], main: str, wanted: Wanted, kernel_mtu: int) -> bool:
    """Return whether the files are as wanted, except that one of the moving addresses is still the bridge's own."""
    owners = [replace(wanted, gateway_address=address) for address in wanted.moving_addresses]
    return any(plan(files, main, owner, kernel_mtu).files == files for owner in owners)


def drift(kernel: dict[str, dict[str, Any]], target: Plan, wanted: Wanted) -> list[str]:
    """Return how the kernel differs; ``kernel`` is {interface: {kind, ports, addresses, mtu, mac, up, stp}}."""
    bridge = kernel.get(wanted.bridge)
    if bridge is None:
        return [f"{wanted.bridge} does not exist"]
    found: list[str] = []
    if bridge.get("kind") != "bridge":
        return [f"{wanted.bridge} is not a bridge"]
    if not bridge.get("up"):
        found.append(f"{wanted.bridge} is down")
    ports = bridge.get("ports")
    found += [f"{port} is not a port of {wanted.bridge}" for port in target.ports if port not in (ports or ())]
    addresses = [str(a) for a in bridge.get("addresses") or ()]
    found += [
        f"{wanted.bridge} lacks the address {address}" for address in target.addresses if address not in addresses
    ]
    own = (wanted.gateway_address, *wanted.moving_addresses)
    if target.dhcp and not [a for a in addresses if ":" not in a and a not in own]:
        found.append(f"{wanted.bridge} has no address from DHCP")
    wire = kernel.get(wanted.interface, {})
    left = [str(a) for a in wire.get("addresses") or () if ":" not in str(a)]
    found += [f"{wanted.interface} still has the address {address}" for address in left]
    if wire.get("mac") != bridge.get("mac"):
        found.append(f"{wanted.bridge} has not the MAC address of {wanted.interface}")
    if wanted.veth and wanted.veth_ovs not in kernel:
        found.append(f"{wanted.veth_ovs} does not exist")
    if target.mtu:
        members = [wanted.bridge, wanted.interface, *([wanted.veth_bridge, wanted.veth_ovs] if wanted.veth else [])]
        found += [
            f"{n} has not the MTU {target.mtu}" for n in members if n in kernel and kernel[n].get("mtu") != target.mtu
        ]
    if bridge.get("stp"):
        found.append(f"{wanted.bridge} runs the spanning tree protocol")
    return found


def foreign(kernel: dict[str, dict[str, Any]], target: Plan, wanted: Wanted) -> list[str]:
    """Return the addresses and ports of the bridge that nothing here describes."""
    bridge = kernel.get(wanted.bridge, {})
    # With DHCP, any address may be the bridge's own.
    addresses = [] if target.dhcp else [str(one) for one in bridge.get("addresses") or () if ":" not in str(one)]
    known = [*target.addresses, *wanted.moving_addresses]
    found = [f"{wanted.bridge}: address {one}" for one in addresses if one not in known]
    return found + [f"{wanted.bridge}: port {one}" for one in bridge.get("ports") or () if one not in target.ports]
