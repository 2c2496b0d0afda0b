# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Read interfaces(5) of ifupdown and put a Linux bridge over one of its interfaces.

Pure functions over texts: nothing here reads or writes a host. What is not part of the bridge keeps its bytes.
The syntax is that of Debian's interfaces(5); the bridge options are those of bridge-utils-interfaces(5), whose
C(bridge_hw) takes the name of the port whose MAC address the bridge shall have.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

BEGIN = "# BEGIN Kilonova, role bridge: written by every run. Change its variables, not this section."
END = "# END Kilonova"
GATEWAY_MARK = "# Kilonova: gateway of fixed_range, for as long as fixed_gateway is empty"
INDENT = "    "

STANZAS = {"iface", "mapping"}
ALLOW = re.compile(r"^(auto|allow-[a-z-]+)$")
OTHERS = {"source", "source-directory", "no-auto-down", "no-scripts", "rename", "template"}
# Options of the bridge that are always written by us.
OURS = {"bridge_ports", "bridge_stp", "bridge_fd", "bridge_maxwait", "bridge_hw", "mtu"}
# Options that describe the wire and stay with the interface that is plugged into it.
HARDWARE = re.compile(r"^(hwaddress$|ethernet-|link-|hardware-|offload-|wpa-|wireless-|bond-|vlan-)")
COMMANDS = {"pre-up", "up", "post-up", "down", "pre-down", "post-down"}
WIRE_COMMAND = re.compile(r"\b(ethtool|mii-tool|iwconfig|ifconfig)\b|\bip\s+(-\S+\s+)*l(ink|i)?\s")
ROUTING_COMMAND = re.compile(r"\bip\s+(-\S+\s+)*(r(oute)?|a(ddr(ess)?)?|ru(le)?|n(eigh)?)\s")


class InterfacesError(Exception):
    """A file that cannot be turned into the wanted one; the message says what to do."""


@dataclass
class Block:
    """Some whole lines of an interfaces file: a stanza, an auto line, or comments."""

    kind: str
    raw: str
    names: list[str] = field(default_factory=list)
    family: str = ""
    method: str = ""
    options: list[tuple[str, str]] = field(default_factory=list)

    @property
    def is_gateway(self) -> bool:
        """Whether this is the stanza that a run adds for the gateway of fixed_range."""
        return GATEWAY_MARK in self.raw

    def option(self, name: str) -> str:
        """The value of an option, or an empty string."""
        return next((value for key, value in self.options if normal(key) == name), "")


@dataclass
class Wanted:
    """What the bridge shall be."""

    interface: str
    bridge: str
    method: str = "auto"
    address: str = ""
    gateway: str = ""
    dns: list[str] = field(default_factory=list)
    mtu: int = 0
    gateway_address: str = ""
    veth: bool = False

    @property
    def veth_bridge(self) -> str:
        """The end of the veth pair that is a port of the bridge."""
        return f"{self.bridge}-ovs"

    @property
    def veth_ovs(self) -> str:
        """The end of the veth pair that is meant for Open vSwitch."""
        return f"ovs-{self.bridge}"


@dataclass
class Plan:
    """The files as they shall be and what the kernel shall have once they are applied."""

    files: dict[str, str]
    addresses: list[str]
    dhcp: bool
    mtu: int
    ports: list[str]
    up: list[str]


def normal(option: str) -> str:
    """An option's name; bridge-ports and bridge_ports are the same."""
    return option.replace("-", "_") if option.startswith("bridge") else option


def logical_lines(text: str) -> list[tuple[str, str]]:
    """(raw, joined) of each line. A backslash at a line's end continues it, except in a comment."""
    result: list[tuple[str, str]] = []
    raw = joined = ""
    for line in text.splitlines(keepends=True):
        body = line.rstrip("\n")
        raw += line
        if body.endswith("\\") and not (joined == "" and body.lstrip().startswith("#")):
            joined += body[:-1] + " "
            continue
        result.append((raw, joined + body))
        raw = joined = ""
    if raw:
        result.append((raw, joined))
    return result


def parse(text: str) -> list[Block]:
    """
    Split a file into blocks; their raw texts, joined, are the file again.

    Comments and blank lines between two stanzas are a block of their own; those inside a stanza belong to it.
    """
    blocks: list[Block] = []
    pending = ""  # comments and blank lines whose place is not known yet
    current: Block | None = None

    def text_block() -> None:
        nonlocal pending
        if pending:
            blocks.append(Block("text", pending))
            pending = ""

    for raw, joined in logical_lines(text):
        words = joined.split()
        if not words or words[0].startswith("#"):
            pending += raw
            # A comment in column one, a blank line and our own marks stand between stanzas.
            if not words or not joined[0].isspace():
                continue
            if current is not None and pending == raw:
                current.raw += pending
                pending = ""
            continue
        keyword = words[0]
        if keyword in STANZAS or ALLOW.match(keyword) or keyword in OTHERS:
            text_block()
            current = None
            if keyword == "iface":
                if len(words) < 2:
                    raise InterfacesError(f"line {joined.strip()!r} names no interface")
                family, method = (words[2], words[3]) if len(words) > 3 else ("", "")
                current = Block("iface", raw, [words[1]], family, method)
            elif keyword == "mapping":
                current = Block("mapping", raw, words[1:])
            elif ALLOW.match(keyword):
                blocks.append(Block(keyword, raw, words[1:]))
                continue
            else:
                blocks.append(Block(keyword, raw, words[1:]))
                continue
            blocks.append(current)
            continue
        if current is None:
            raise InterfacesError(f"line {joined.strip()!r} belongs to no stanza")
        current.raw += pending + raw
        pending = ""
        current.options.append((keyword, joined.strip()[len(keyword) :].strip()))
    text_block()
    return blocks


def sources(text: str) -> list[tuple[str, str]]:
    """(keyword, pattern) of each source and source-directory line."""
    return [(b.kind, name) for b in parse(text) if b.kind in ("source", "source-directory") for name in b.names]


def load(path: str, read: Callable[[str], str | None], expand: Callable[[str, str], Iterable[str]]) -> dict[str, str]:
    """The file and all that it sources, {path: text}; C(expand) turns a source line into paths."""
    files: dict[str, str] = {}
    waiting = [path]
    while waiting:
        name = waiting.pop(0)
        if name in files:
            continue
        text = read(name)
        if text is None:
            continue
        files[name] = text
        for keyword, pattern in sources(text):
            waiting.extend(expand(keyword, pattern))
    return files


def cidrs(block: Block) -> list[str]:
    """The address of a static stanza as ADDRESS/PREFIX."""
    address, netmask = block.option("address"), block.option("netmask")
    if not address or block.method != "static":
        return []
    text = address if "/" in address else f"{address}/{netmask}" if netmask else address
    try:
        return [ipaddress.ip_interface(text).with_prefixlen]
    except ValueError as error:
        raise InterfacesError(f"address {text!r} of {block.names[0]} is not an address: {error}") from error


def for_bridge(command: str, wanted: Wanted) -> str:
    """A command of the interface as the bridge needs it: routes and addresses go to the bridge."""
    if not ROUTING_COMMAND.search(command):
        return command
    return re.sub(rf"\bdev\s+{re.escape(wanted.interface)}(?![\w.:-])", f"dev {wanted.bridge}", command)


def stays_on_wire(option: str, value: str, wanted: Wanted) -> bool:
    """Whether an option of the interface stays there when its addresses move to the bridge."""
    if HARDWARE.match(option):
        return True
    names = re.search(rf"(?<![\w.:-]){re.escape(wanted.interface)}(?![\w.:-])|\$IFACE|\$\{{IFACE\}}", value)
    return option in COMMANDS and bool(WIRE_COMMAND.search(value)) and bool(names)


def stanza(name: str, family: str, method: str, options: Iterable[tuple[str, str]], mark: str = "") -> str:
    """The text of an iface stanza."""
    lines = [f"iface {name} {family} {method}"]
    if mark:
        lines.append(f"{INDENT}{mark}")
    lines += [f"{INDENT}{key} {value}".rstrip() for key, value in options]
    return "\n".join(lines) + "\n"


def own_addressing(blocks: list[Block], wanted: Wanted) -> list[Block]:
    """The stanzas whose addresses the bridge shall have."""
    bridge = [b for b in blocks if b.kind == "iface" and b.names == [wanted.bridge] and not b.is_gateway]
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
    """Stanzas of the bridge, the addresses they give it, and whether one of them asks DHCP for IPv4."""
    first = [
        ("bridge_ports", " ".join([wanted.interface, *([wanted.veth_bridge] if wanted.veth else [])])),
        ("bridge_stp", "off"),
        ("bridge_fd", "0"),
        ("bridge_maxwait", "0"),
        ("bridge_hw", wanted.interface),
        *([("mtu", str(mtu))] if mtu else []),
    ]
    found = own_addressing(blocks, wanted)
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
    """The interface's own stanza: no address, what concerns the wire stays."""
    options: list[tuple[str, str]] = [("mtu", str(mtu))] if mtu else []
    for block in blocks:
        if block.kind == "iface" and block.names == [wanted.interface]:
            for key, value in block.options:
                keep = key != "mtu" and (block.method == "manual" or stays_on_wire(key, value, wanted))
                if keep and (key, value) not in options:
                    options.append((key, value))
    return stanza(wanted.interface, "inet", "manual", options)


def veth_stanza(wanted: Wanted, mtu: int) -> str:
    """The veth pair's stanza. The pair outlives ifdown, so that Open vSwitch keeps its port meanwhile."""
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
    """The text without stanzas of own interfaces and our marks, and the offset where the first of them stood."""
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
    """The section that a run writes, the addresses of the bridge in it, and whether it uses DHCP."""
    stanzas, addresses, dhcp = bridge_stanzas(parsed, wanted, mtu)
    parts = [f"auto {wanted.interface}\n{wire_stanza(parsed, wanted, mtu)}"]
    if wanted.veth:
        parts.append(f"auto {wanted.veth_bridge}\n{veth_stanza(wanted, mtu)}")
    parts.append(f"auto {wanted.bridge}\n{stanzas[0]}")
    parts += stanzas[1:]
    return BEGIN + "\n" + "\n".join(parts) + END + "\n", addresses, dhcp


def wanted_mtu(parsed: list[Block], wanted: Wanted, kernel_mtu: int) -> int:
    """The MTU to write: the one asked for, the one in the files, or else the interface's; 0 for the usual 1500."""
    if wanted.mtu:
        return wanted.mtu
    mine = [
        b for b in parsed if b.kind == "iface" and b.names[0] in (wanted.interface, wanted.bridge) and not b.is_gateway
    ]
    for block in mine:
        if block.option("mtu").isdigit():
            return int(block.option("mtu"))
    if any(b.names == [wanted.bridge] for b in mine):
        return 0
    return 0 if kernel_mtu in (0, 1500) else kernel_mtu


def plan(files: dict[str, str], main: str, wanted: Wanted, kernel_mtu: int = 0) -> Plan:
    """The files with the bridge in them. C(main) is the file that the section goes into."""
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
            # What is sourced may need the bridge, so it comes before the first source line.
            head = re.search(r"^[ \t]*source(-directory)?\b", rest, re.MULTILINE)
            place = head.start() if head else len(rest)
        before, after = rest[:place].rstrip("\n"), rest[place:].strip("\n")
        result[path] = (before + "\n\n" if before else "") + text + ("\n" + after + "\n" if after else "")
    ports = [wanted.interface, *([wanted.veth_bridge] if wanted.veth else [])]
    # Interfaces made of the wire (VLANs) lose their routes while it is down.
    children = [
        block.names[0]
        for block in everything
        if block.kind == "iface"
        and (block.names[0].startswith(f"{wanted.interface}.") or block.option("vlan-raw-device") == wanted.interface)
    ]
    up = [*ports, wanted.bridge, *dict.fromkeys(children)]
    return Plan(files=result, addresses=addresses, dhcp=dhcp, mtu=mtu, ports=ports, up=up)


def drift(kernel: dict[str, dict[str, Any]], target: Plan, wanted: Wanted) -> list[str]:
    """What the running kernel lacks. C(kernel) is {interface: {kind, ports, addresses, mtu, mac, up, stp}}."""
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
    if target.dhcp and not [a for a in addresses if ":" not in a and a != wanted.gateway_address]:
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
