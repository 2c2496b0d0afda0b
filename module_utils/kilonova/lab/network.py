# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A lab's network on the computer: bridge, address, NAT, forwarding, and the resolvers that machines use."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.module_utils.kilonova.lab.boot import bridge_name, network_table, table_name
from ansible.module_utils.kilonova.lab.computer import (
    NETNS,
    STATE,
    LabError,
    link_exists,
    mounts_below,
    read_json,
    run,
    write_file,
)

IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
COMPUTER_RECORD = STATE / "computer.json"
# A route at least this long is a network that this computer really uses; a shorter one through a gateway
# (a default route, a private network's 10.0.0.0/8) merely covers the lab's subnet, which is more specific.
SPECIFIC_PREFIX = 20


def lab_subnet(text: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise LabError(
            f"lab_subnet is {text!r}, which is not an IPv4 network ({error}). Use a /24, as 10.208.7.0/24."
        ) from None
    if not 24 <= network.prefixlen <= 28:  # noqa: PLR2004
        raise LabError(f"lab_subnet is {text}: a lab's subnet must be a /24 to /28. Use for example 10.208.7.0/24.")
    return network


def gateway_of(subnet: str) -> str:
    return str(ipaddress.ip_interface(subnet).network[1])


def overlaps(
    subnet: ipaddress.IPv4Network, bridge: str, routes: Iterable[dict[str, Any]], labs: dict[str, str]
) -> list[str]:
    """What uses addresses of the subnet already: routes as ``ip -json route`` gives them, and other labs' subnets."""
    found = []
    for route in routes:
        destination = route.get("dst", "default")
        elsewhere = route.get("type") not in ("broadcast", "local", "multicast") and route.get("dev") != bridge
        if destination == "default" or not elsewhere:
            continue
        network = ipaddress.ip_network(destination, strict=False)
        if not isinstance(network, ipaddress.IPv4Network) or not network.overlaps(subnet):
            continue
        if "gateway" not in route or network.prefixlen >= SPECIFIC_PREFIX:
            found.append(f"the route to {network} on {route.get('dev', 'this computer')}")
    for other, text in sorted(labs.items()):
        if ipaddress.ip_network(text).overlaps(subnet):
            found.append(f"the lab {other} ({text})")
    return found


def check_overlaps(subnet: ipaddress.IPv4Network, lab_id: str) -> None:
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]).stdout or "[]")
    labs = {}
    for record in STATE.glob("*/lab.json"):
        other = read_json(record)
        if record.parent.name != lab_id and other.get("subnet"):
            labs[f"{record.parent.name} of {other.get('project', '?')}"] = other["subnet"]
    found = overlaps(subnet, bridge_name(lab_id), routes, labs)
    if found:
        raise LabError(
            f"The lab's subnet {subnet} overlaps {' and '.join(found)}. Choose a free /24 and set lab_subnet to it, "
            "for example with -e lab_subnet=10.223.250.0/24 or in the inventory's group variables."
        )


def uplink_mtu() -> int:
    """MTU of the interface with the default route: packets that are too big for it would be lost behind the NAT."""
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "default"]).stdout or "[]")
    for route in sorted(routes, key=lambda item: int(item.get("metric", 0))):
        path = Path("/sys/class/net", str(route.get("dev")), "mtu")
        if path.exists():
            return int(path.read_text())
    return 1500


def bridge_problems(lab_id: str, address: str, mtu: int) -> list[str]:
    """What is not as wanted on the lab's bridge; empty if nothing."""
    bridge = bridge_name(lab_id)
    if not link_exists(bridge):
        return [f"bridge {bridge}"]
    state = json.loads(run(["ip", "-json", "-4", "address", "show", "dev", bridge]).stdout)[0]
    have = [f"{item['local']}/{item['prefixlen']}" for item in state.get("addr_info", [])]
    problems = []
    if have != [address]:
        problems.append(f"address {address} on {bridge}")
    if state.get("mtu") != mtu:
        problems.append(f"MTU {mtu} on {bridge}")
    if "UP" not in state.get("flags", []):
        problems.append(f"bridge {bridge} up")
    return problems


def set_bridge(lab_id: str, address: str, mtu: int) -> None:
    bridge = bridge_name(lab_id)
    if not link_exists(bridge):
        run(["ip", "link", "add", bridge, "type", "bridge"])
    run(["ip", "address", "flush", "dev", bridge])
    run(["ip", "address", "add", address, "dev", bridge])
    run(["ip", "link", "set", bridge, "mtu", str(mtu), "up"])


def has_table(lab_id: str, rules: str | None = None) -> bool:
    """Whether the lab's nftables table is there, with all of the wanted rules if they are given."""
    done = run(["nft", "list", "table", "ip", table_name(lab_id)], check=False)
    if done.returncode != 0 or rules is None:
        return done.returncode == 0
    have = {line.strip() for line in done.stdout.splitlines()}
    wanted = {line.strip() for line in rules.splitlines()}
    return {line for line in wanted if line.endswith((" accept", " drop", " masquerade"))} <= have


def set_table(lab_id: str, subnet: str) -> None:
    run(["nft", "-f", "-"], text=network_table(lab_id, subnet))


def forward_drops(ruleset: list[dict[str, Any]], lab_id: str) -> list[str]:
    """Other tables' chains that drop forwarded packets unless told otherwise; an accept in ours does not help there."""
    chains = [item["chain"] for item in ruleset if "chain" in item]
    return [
        f"{chain['family']} {chain['table']} {chain['name']}"
        for chain in chains
        if chain.get("hook") == "forward"
        and chain.get("policy") == "drop"
        and chain["family"] in ("ip", "inet")
        and chain["table"] != table_name(lab_id)
    ]


def forward_warning(lab_id: str) -> str:
    done = run(["nft", "-json", "list", "chains"], check=False)
    if done.returncode != 0:
        return ""
    chains = forward_drops(json.loads(done.stdout).get("nftables", []), lab_id)
    if not chains:
        return ""
    bridge = bridge_name(lab_id)
    return (
        f"This computer drops forwarded packets by default (nftables chain {', '.join(chains)}), the lab's included "
        "unless a rule there lets them through. If machines cannot reach the package archive: "
        # The + stands for the rest of a name: the wires of the interfaces beside eth0.
        f"iptables -I FORWARD -i {bridge}+ -j ACCEPT; iptables -I FORWARD -o {bridge}+ -j ACCEPT"
    )


# ------------------------------------------------------------------ what is the computer's, not one lab's
def remember_computer() -> None:
    """Record what the first lab finds, for the last one to put back."""
    if not COMPUTER_RECORD.exists():
        found = {"ip_forward": IP_FORWARD.read_text().strip(), "netns_mount": str(bool(mounts_below(str(NETNS))))}
        write_file(COMPUTER_RECORD, json.dumps(found) + "\n")


def restore_computer() -> None:
    found = read_json(COMPUTER_RECORD)
    if found.get("ip_forward") == "0":
        IP_FORWARD.write_text("0\n")
    # ip netns makes its directory a mount point, and leaves it one. Others' namespaces in it keep it in use.
    if found.get("netns_mount") == "False" and NETNS.is_dir() and not any(NETNS.iterdir()):
        for point in mounts_below(str(NETNS)):
            run(["umount", point])
        NETNS.rmdir()
    COMPUTER_RECORD.unlink(missing_ok=True)


# ------------------------------------------------------------------ resolvers
def usable_nameservers(resolv_conf: str) -> list[str]:
    """The resolvers in a resolv.conf that a machine with an address of its own can reach."""
    found = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                loopback = ipaddress.ip_address(words[1].split("%")[0]).is_loopback
            except ValueError:
                continue
            if not loopback:
                found.append(words[1])
    return found


def resolver_text(
    nameservers: list[str],
    files: tuple[Path, ...] = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")),
) -> str:
    """resolv.conf for a machine. The second file has the real resolvers where the first names systemd's own stub."""
    if nameservers:
        return "".join(f"nameserver {address}\n" for address in nameservers)
    for path in files:
        text = path.read_text() if path.exists() else ""
        found = usable_nameservers(text)
        if found:
            kept = [line for line in text.splitlines() if line.split()[:1] in (["search"], ["domain"])]
            return "\n".join([*kept, *(f"nameserver {address}" for address in found)]) + "\n"
    raise LabError(
        f"None of {', '.join(map(str, files))} names a resolver that a lab machine can reach (127.0.0.0/8 is the "
        "machine itself there). Set lab_nameservers to a list of resolver addresses."
    )
