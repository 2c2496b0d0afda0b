# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of a host and of the network variables before anything is changed.

Every function takes plain data and returns messages. A message names the variable, its value, why it cannot work, and
what to write instead. C(facts) is what the module preflight_facts collects. The variables' own names and types are
checked in preflight_variables.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any

SUPPORTED = {"debian": ("13",)}
INTERFACE_NAME_LENGTH = 15
# br0 becomes br0-ovs and ovs-br0.
BRIDGE_NAME_LENGTH = INTERFACE_NAME_LENGTH - len("-ovs")
HOST_NAME_LENGTH = 64
LABEL = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", re.IGNORECASE)
# The gateway, the DHCP and metadata port, and one guest.
SMALLEST_NETWORK = 3

Facts = Mapping[str, Any]


def message(variable: str, value: object, why: str, instead: str) -> str:
    """The form that all messages have."""
    return f"{variable} = {value!r}: {why}. {instead}."


def ipv4(interface: Mapping[str, Any]) -> list[str]:
    """IPv4 addresses of an interface, with prefix length."""
    return [cidr for cidr in interface["addresses"] if ":" not in cidr]


def network_of(text: object) -> ipaddress.IPv4Network | None:
    """An IPv4 network in CIDR form, None where the text is none."""
    try:
        return ipaddress.IPv4Network(str(text)) if "/" in str(text) else None
    except ValueError:
        return None


def check_system(facts: Facts) -> list[str]:
    """The operating system and what every role needs of it."""
    found = []
    release = facts["os"]
    if str(release["version"]).split(".")[0] not in SUPPORTED.get(release["id"], ()):
        name = release["name"] or f"{release['id']} {release['version']}".strip() or "unknown"
        found.append(
            f"The operating system is {name}: only Debian 13 (trixie) is supported. Install Debian 13 on this host."
        )
    elif not facts["apt"]:
        found.append("apt-get and dpkg are missing: every package comes through them. Install the package apt.")
    if facts["pid1"] != "systemd":
        found.append(
            f"PID 1 is {facts['pid1'] or 'unknown'}: services are run by systemd. Install the package systemd-sysv and "
            "reboot the host."
        )
    return found


def check_memory(facts: Facts, minimum: int) -> list[str]:
    """Enough memory for this host's groups."""
    have = facts["memory_mib"]
    if have >= minimum:
        return []
    return [
        f"The host has {have} MiB of memory: its services need {minimum} MiB (preflight_minimum_memory_mib = "
        f"{minimum}). Give it more memory, "
        f"or set preflight_minimum_memory_mib to {have} or less to try with less."
    ]


def check_disk(facts: Facts, minimum: int, minimum_deployed: int) -> list[str]:
    """Enough free disk; less is needed where a deployment has begun, and took what it needed."""
    name, wanted = "preflight_minimum_disk_mib", minimum
    if facts["deployed"]:
        name, wanted = "preflight_minimum_disk_deployed_mib", minimum_deployed
    found = []
    free = facts["disk_free_mib"]
    # One file system is one problem.
    paths = ["/"] if free.get("/") == free.get("/var") else ["/", "/var"]
    for path in paths:
        have = free.get(path)
        if have is not None and have < wanted:
            found.append(
                f"{path} has {have} MiB free: packages, databases and images need {wanted} MiB ({name} = {wanted}). "
                "Free some space there, or set "
                f"{name} to {have} or less to try with less."
            )
    return found


def choices(facts: Facts, without: Iterable[str] = ()) -> str:
    """The interfaces one could name, the one with the default route first."""
    virtual = re.compile(r"-ovs$|^(ovs-|br-|tap|veth|vnet|virbr|kilonova-)")
    names = [
        name
        for name, interface in facts["interfaces"].items()
        if interface["kind"] not in ("loopback", "bridge") and not virtual.search(name) and name not in without
    ]
    names.sort(key=lambda name: (name != facts["default_interface"], name))
    return ", ".join(names) or "none found"


def check_flat_interface(facts: Facts, flat_interface: str, bridge: str) -> list[str]:
    """The interface that the bridge is put over."""
    interface = facts["interfaces"].get(flat_interface)
    if interface is None:
        why = "this host has no interface of that name"
        return [message("flat_interface", flat_interface, why, f"Write one of: {choices(facts)}")]
    if interface["master"] not in ("", bridge):
        why = f"that interface is a part of {interface['master']}"
        instead = (
            f"Write {interface['master']} if that is a bond, one of: {choices(facts)}, or set "
            f"flat_network_bridge to {interface['master']}"
        )
        return [message("flat_interface", flat_interface, why, instead)]
    if interface["kind"] in ("wireless", "loopback"):
        why = f"a {interface['kind']} interface cannot be a port of a bridge"
        return [message("flat_interface", flat_interface, why, f"Write one of: {choices(facts)}")]
    return []


def check_public_interface(facts: Facts, public_interface: str, flat_interface: str, bridge: str) -> list[str]:
    """The interface through which guests reach the outside."""
    if public_interface in (flat_interface, bridge) or public_interface in facts["interfaces"]:
        return []
    why = "this host has no interface of that name"
    return [message("public_interface", public_interface, why, f"Leave it out, or write one of: {choices(facts)}")]


def check_way_out(facts: Facts, public_interface: str, flat_interface: str, bridge: str, serves: bool) -> list[str]:
    """The host that translates guests' addresses does so on public_interface only."""
    way, flat = facts["default_interface"], (flat_interface, bridge)
    if not serves or not way or public_interface == way or (public_interface in flat and way in flat):
        return []
    why = f"this host's default route leaves by {way}, where guests' addresses would not be translated"
    return [message("public_interface", public_interface, why, f"Leave it out, or write {way}")]


def check_bridge_name(facts: Facts, bridge: str, flat_interface: str) -> list[str]:
    """The bridge's name, and those that are made of it."""
    variable = "flat_network_bridge"
    if not re.match(r"^[A-Za-z0-9][A-Za-z0-9_-]*$", bridge):
        why = "a bridge's name consists of letters, digits, - and _, and starts with a letter or digit"
        return [message(variable, bridge, why, "Write a name such as br0")]
    if len(bridge) > BRIDGE_NAME_LENGTH:
        why = (
            f"{bridge}-ovs and ovs-{bridge}, the ends of the cable to Open vSwitch, have {len(bridge) + 4} characters, "
            "and an interface's name has "
            f"at most {INTERFACE_NAME_LENGTH}"
        )
        return [message(variable, bridge, why, f"Write a name of at most {BRIDGE_NAME_LENGTH} characters, such as br0")]
    if bridge == flat_interface:
        return [
            message(
                variable,
                bridge,
                "the bridge cannot have the name of its port, flat_interface",
                "Write another name, such as br0",
            )
        ]
    existing = facts["interfaces"].get(bridge)
    if existing and existing["kind"] != "bridge":
        return [
            message(
                variable,
                bridge,
                "this host has an interface of that name that is no bridge",
                "Write a name that is free, such as br0",
            )
        ]
    return []


def check_host_name(name: str) -> list[str]:
    """The inventory's name becomes the host's name."""
    instead = (
        "Rename the host in the inventory to something like node-1, and set ansible_host to the address to reach it by"
    )
    try:
        ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        return [
            message(
                "inventory_hostname",
                name,
                "an address cannot be a host's name, and the name in the inventory becomes that",
                instead,
            )
        ]
    if len(name) > HOST_NAME_LENGTH:
        return [
            message(
                "inventory_hostname",
                name,
                f"a host name has at most {HOST_NAME_LENGTH} characters, this has {len(name)}",
                instead,
            )
        ]
    if all(LABEL.match(part) for part in name.split(".")):
        return []
    why = (
        "a host name consists of letters, digits and -, does not begin or end with -, and has at most 63 characters "
        "between two dots"
    )
    return [message("inventory_hostname", name, why, instead)]


def check_management_address(facts: Facts, address: str) -> list[str]:
    """An IPv4 address that this host has."""
    own = [
        (name, cidr.partition("/")[0])
        for name, interface in facts["interfaces"].items()
        for cidr in interface["addresses"]
        if ":" not in cidr and interface["kind"] != "loopback"
    ]
    own.sort(key=lambda pair: pair[0] != facts["default_interface"])
    listed = ", ".join(f"{ip} ({name})" for name, ip in own) or "it has none yet"
    instead = f"Write one of this host's addresses in its host variables: {listed}"
    variable = "cloud_management_address"
    try:
        parsed = ipaddress.IPv4Address(address)
    except ValueError:
        kind = (
            "an IPv6 address, and an IPv4 address is needed"
            if ":" in address
            else "not an IPv4 address; services are told addresses, not names"
        )
        return [message(variable, address, f"this is {kind}", instead)]
    if parsed.is_loopback:
        return [message(variable, address, "other hosts cannot reach a loopback address", instead)]
    if address not in [ip for _, ip in own]:
        return [message(variable, address, "this host does not have that address", instead)]
    return []


def check_fixed_range(fixed_range: object, network_size: object) -> list[str]:
    """The guests' network and how many of its addresses are used."""
    text = str(fixed_range)
    try:
        network = ipaddress.IPv4Network(text, strict=False)
        if "/" not in text:
            raise ValueError("the prefix length is missing")
    except ValueError as error:
        why = f"this is not an IPv4 network in CIDR form ({error})"
        return [message("fixed_range", text, why, "Write a network such as 192.168.1.0/24")]
    if text.partition("/")[0] != str(network.network_address):
        why = f"the address has host bits set, {network} is the network that it is in"
        return [message("fixed_range", text, why, f"Write {network}")]
    if (
        network.is_loopback
        or network.is_multicast
        or network.is_link_local
        or network.is_unspecified
        or network.is_reserved
    ):
        return [
            message(
                "fixed_range",
                text,
                "guests cannot use addresses of that kind",
                "Write a private network such as 192.168.1.0/24",
            )
        ]
    usable = max(network.num_addresses - 2, 0)
    if usable < SMALLEST_NETWORK:
        why = f"it has {usable} usable addresses, and a gateway, DHCP and a guest need {SMALLEST_NETWORK}"
        return [message("fixed_range", text, why, "Write a larger network such as 192.168.1.0/24")]
    try:
        size = int(str(network_size))
    except ValueError:
        return []  # its type is checked with all others'
    if size < SMALLEST_NETWORK:
        why = f"a gateway, DHCP and a guest need {SMALLEST_NETWORK} addresses"
        return [message("network_size", size, why, f"Write a number from {SMALLEST_NETWORK} to {usable}")]
    if size > usable:
        fitting = 32 - (size + 1).bit_length()
        larger = f"{network.network_address}/{fitting}"
        enough = ipaddress.IPv4Network(larger, strict=False)
        why = f"fixed_range = {text} has only {usable} usable addresses"
        return [message("network_size", size, why, f"Write {usable} or less, or a larger fixed_range such as {enough}")]
    return []


def check_fixed_gateway(fixed_gateway: str, fixed_range: object) -> list[str]:
    """The site's own router, where there is one."""
    network = network_of(fixed_range)
    if not fixed_gateway or network is None:
        return []
    example = next(network.hosts(), network.network_address)
    instead = f"Write the address of the router in {network}, such as {example}, or '' if the site has none there"
    variable = "fixed_gateway"
    try:
        address = ipaddress.IPv4Address(fixed_gateway)
    except ValueError:
        return [message(variable, fixed_gateway, "this is not an IPv4 address", instead)]
    if address not in network:
        return [message(variable, fixed_gateway, f"this address is outside fixed_range = {network}", instead)]
    for special, name in ((network.network_address, "network"), (network.broadcast_address, "broadcast")):
        if address == special:
            return [message(variable, fixed_gateway, f"this is the {name} address of fixed_range = {network}", instead)]
    return []


def free_network(prefix: int, taken: Iterable[ipaddress.IPv4Network]) -> str:
    """A private network of that prefix length that overlaps none of the others, for a message."""
    others = list(taken)
    for pool in ("192.168.0.0/16", "10.0.0.0/8", "172.16.0.0/12"):
        base = ipaddress.IPv4Network(pool)
        for count, network in enumerate(base.subnets(new_prefix=max(prefix, base.prefixlen))):
            if count and not any(network.overlaps(other) for other in others):
                return str(network)
            if count > 1024:
                break
    return "another private network"


def check_host_networks(facts: Facts, fixed_range: object, bridge: str, management_address: str) -> list[str]:
    """The guests' network against those the host is in. The gateway address that a run put on the bridge is ours."""
    network = network_of(fixed_range)
    if network is None or network.num_addresses < SMALLEST_NETWORK:
        return []
    ours = f"{next(network.hosts())}/{network.prefixlen}"
    found = []
    others: list[tuple[str, str, ipaddress.IPv4Network]] = []
    for name, interface in facts["interfaces"].items():
        for cidr in interface["addresses"]:
            if ":" not in cidr and not (name == bridge and cidr == ours):
                others.append((name, cidr, ipaddress.IPv4Interface(cidr).network))
    for name, cidr, other in others:
        if other.overlaps(network):
            of = "the management network" if cidr.partition("/")[0] == management_address else "a network"
            why = f"it overlaps {of} {other} that this host is in ({cidr} on {name})"
            instead = (
                "Write a network that nothing else uses, such as "
                f"{free_network(network.prefixlen, [o for _, _, o in others])}"
            )
            found.append(message("fixed_range", fixed_range, why, instead))
    return found


def check_tunnel(facts: Facts, address: str, interface: str, bridges: Iterable[str], hosts: int) -> list[str]:
    """
    The address on a bridge of Open vSwitch, which tunnels need where that forwards in user space.

    The first of the bridges is the one that gets the address.
    """
    variable, own = "ovn_chassis_bridge_address", list(bridges)
    instead = "Write an address with prefix length in a network of the tunnels' own, such as 10.78.0.14/24"
    if not address:
        if interface:
            why = f"tunnels over ovn_chassis_tunnel_interface = {interface} end at this address, which {own[0]} gets"
        elif facts["ovs_kernel"] or hosts < 2:
            return []
        else:
            why = (
                "the kernel of this host has no openvswitch module, and Open vSwitch in user space can send the "
                f"packets of tunnels to the cloud's other hosts only from an address on {own[0]}"
            )
        return [message(variable, address, why, f"{instead}, another one for each host")]
    try:
        parsed = ipaddress.IPv4Interface(address)
    except ValueError as error:
        return [message(variable, address, f"this is not an IPv4 address with prefix length ({error})", instead)]
    if "/" not in address or parsed.network.num_addresses < SMALLEST_NETWORK:
        return [message(variable, address, "other hosts' addresses must be in the same network", instead)]
    for name, other in facts["interfaces"].items():
        # Addresses of the tunnels' interface are another check's.
        if name in (*own, interface):
            continue
        for cidr in ipv4(other):
            if ipaddress.IPv4Interface(cidr).network.overlaps(parsed.network):
                why = f"{name} is in that network already, with {cidr}"
                return [message(variable, address, why, instead)]
    return []


def check_tunnel_interface(facts: Facts, name: str, flat_interface: str) -> list[str]:
    """The interface that becomes the port of a bridge for tunnels only."""
    variable = "ovn_chassis_tunnel_interface"
    if not name:
        return []
    addressed = [other for other, its in facts["interfaces"].items() if ipv4(its)]
    free = f"Leave it out, or write one of: {choices(facts, (flat_interface, *addressed))}"
    interface = facts["interfaces"].get(name)
    if interface is None:
        return [message(variable, name, "this host has no interface of that name", free)]
    if name == flat_interface:
        why = "this is flat_interface, over which tunnels go when this is left out"
        return [message(variable, name, why, "Leave it out")]
    # With its datapath in the kernel, Open vSwitch is the master of its ports.
    if interface["master"] not in ("", "ovs-system"):
        return [message(variable, name, f"that interface is a part of {interface['master']}", free)]
    if interface["kind"] in ("wireless", "loopback", "bridge"):
        why = f"a {interface['kind']} interface cannot be a port of Open vSwitch's bridge"
        return [message(variable, name, why, free)]
    taken = ipv4(interface)
    if taken:
        why = f"it has the address {taken[0]}, which no longer works once the interface is a port of a bridge"
        instead = (
            f"If it is for tunnels only, remove the address of {name} from /etc/network/interfaces and write it in "
            "ovn_chassis_bridge_address"
        )
        if facts["ovs_kernel"]:
            instead += f". Otherwise leave this out, and set ovn_chassis_tunnel_address to {taken[0].partition('/')[0]}"
        return [message(variable, name, why, instead)]
    return []


def check_tunnel_address(facts: Facts, address: str, bridge_address: str, management: str, hosts: int) -> list[str]:
    """The address that tunnels end at, where it is neither of those that have checks of their own."""
    variable = "ovn_chassis_tunnel_address"
    ours = bridge_address.partition("/")[0]
    if address == (ours or management):
        return []
    if ours and not facts["ovs_kernel"] and hosts > 1:
        why = (
            "the kernel of this host has no openvswitch module, and Open vSwitch in user space can send the packets of "
            f"tunnels from ovn_chassis_bridge_address = {bridge_address} only"
        )
        return [message(variable, address, why, "Leave it out")]
    have = [
        cidr.partition("/")[0]
        for interface in facts["interfaces"].values()
        if interface["kind"] != "loopback"
        for cidr in ipv4(interface)
    ]
    if address in have:
        return []
    instead = f"Leave it out, or write one of: {', '.join(have) or 'none found'}"
    return [message(variable, address, "this host does not have that address", instead)]


def check_ssh_host_key(facts: Facts, groups: Iterable[str]) -> list[str]:
    """The key by which computes recognise each other."""
    if "compute" not in groups or facts["ssh_host_key"].startswith("ssh-ed25519 "):
        return []
    return [
        "/etc/ssh/ssh_host_ed25519_key.pub is missing: computes recognise each other by it when they migrate guests. "
        "Run ssh-keygen -A on this host."
    ]


def check_ranges(ranges: Mapping[str, object]) -> list[str]:
    """Our own ranges against each other, {variable: CIDR}; what is not a network is another check's."""
    parsed = [(name, network) for name, value in sorted(ranges.items()) if (network := network_of(value)) is not None]
    found = []
    for index, (name, network) in enumerate(parsed):
        for other_name, other in parsed[index + 1 :]:
            if network.overlaps(other):
                instead = (
                    f"Write a network such as {free_network(network.prefixlen, [n for _, n in parsed])} in one "
                    "of the two"
                )
                found.append(message(name, str(network), f"it overlaps {other_name} = {other}", instead))
    return found


def check_clock(facts: Facts, before: float, after: float, maximum: float) -> list[str]:
    """The host's clock against the times here before and after it was read."""
    clock = float(facts["clock"])
    skew = clock - after if clock > after else clock - before if clock < before else 0.0
    if abs(skew) <= maximum:
        return []
    way = "ahead of" if skew > 0 else "behind"
    return [
        f"The clock of this host is {abs(skew):.0f} s {way} that of the computer running Ansible: tokens and "
        "certificates need times within "
        f"{maximum:g} s (preflight_maximum_clock_skew = {maximum:g}). Set the clock (timedatectl set-time, or chronyc "
        "makestep), on whichever "
        "of the two is wrong."
    ]


def check_ports(facts: Facts, ports: Iterable[Mapping[str, Any]], groups: Iterable[str]) -> list[str]:
    """Ports that this host's services need and that something else holds."""
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


def check_groups(host: str, first: str, groups: Mapping[str, list[str]]) -> list[str]:
    """The inventory's groups. What concerns the inventory as a whole is said by the first host only."""
    controllers = list(groups.get("controller", []))
    computes = list(groups.get("compute", []))
    found = []
    if host not in controllers and host not in computes:
        found.append(
            f"Host {host} is in neither of the groups controller and compute: it would get nothing. Add it to one, or "
            "take it out."
        )
    if host != first:
        return found
    if not controllers:
        found.append(
            "The group controller has no host: the APIs, the database and the queue run there. Put one host into it."
        )
    elif len(controllers) > 1:
        found.append(
            f"The group controller has {len(controllers)} hosts ({', '.join(controllers)}): more than one is not "
            "supported yet. Leave one in "
            "it, and put the others into compute."
        )
    if not computes:
        found.append(
            "The group compute has no host: guests run there. Put at least one host into it; the controller may be in "
            "both."
        )
    return found


def note_groups(host: str, first: str, groups: Mapping[str, list[str]]) -> list[str]:
    """Hosts of the inventory that get nothing, said by the first host only."""
    if host != first:
        return []
    known = {*groups.get("controller", []), *groups.get("compute", []), *groups.get("lab", []), host, "localhost"}
    return [
        f"Host {other} is in neither of the groups controller and compute, so nothing is done on it."
        for other in sorted(set(groups.get("all", [])) - known)
    ]


def notes(facts: Facts, groups: Iterable[str]) -> list[str]:
    """What works, but differently than one may expect."""
    found = []
    if "compute" in groups:
        if not facts["kvm"]:
            found.append(
                f"KVM is not usable here ({facts['kvm_reason']}): guests are emulated by QEMU, which is many times "
                "slower. Enable virtualisation "
                "in the firmware, or nested virtualisation on the hypervisor below, to have KVM."
            )
        if not facts["ovs_kernel"]:
            found.append("The kernel has no openvswitch module: Open vSwitch forwards in user space, which is slower.")
    return found
