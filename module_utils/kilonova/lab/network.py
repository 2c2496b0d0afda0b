# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Network of a lab on the computer: bridge, address, NAT, forwarding, and resolvers."""

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
# Shorter routes through a gateway (a default route, 10.0.0.0/8) do not conflict: the lab is more specific.
SPECIFIC_PREFIX = 20


def lab_subnet(text: str) -> ipaddress.IPv4Network:
    """Return the subnet of the lab as a network. Raises LabError."""
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise LabError(
            f"lab_subnet is {text!r}, which is not an IPv4 network ({error}). Use a /24, as 10.208.7.0/24."
        ) from None
    if not 24 <= network.prefixlen <= 28:  # noqa: PLR2004
        raise LabError(f"lab_subnet is {text}: it must be a /24 to /28. Use for example 10.208.7.0/24.")
    return network


def gateway_of(subnet: str) -> str:
    return str(ipaddress.ip_interface(subnet).network[1])


def overlaps(
    subnet: ipaddress.IPv4Network, bridge: str, routes: Iterable[dict[str, Any]], labs: dict[str, str]
) -> list[str]:
    """Return what overlaps the subnet: routes (from ``ip -json route``) and other labs."""
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
    """Raise LabError if the subnet is in use."""
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]).stdout or "[]")
    labs = {}
    for record in STATE.glob("*/lab.json"):
        other = read_json(record)
        if record.parent.name != lab_id and other.get("subnet"):
            labs[f"{record.parent.name} of {other.get('project', '?')}"] = other["subnet"]
    found = overlaps(subnet, bridge_name(lab_id), routes, labs)
    if found:
        raise LabError(
            f"The subnet {subnet} of the lab overlaps {' and '.join(found)}. Choose a free /24 and set lab_subnet to "
            "it, for example with -e lab_subnet=10.223.250.0/24 or in the inventory's group variables."
        )


def uplink_mtu() -> int:
    """Return the MTU of the interface with the default route; larger packets would be lost."""
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "default"]).stdout or "[]")
    for route in sorted(routes, key=lambda item: int(item.get("metric", 0))):
        path = Path("/sys/class/net", str(route.get("dev")), "mtu")
        if path.exists():
            return int(path.read_text())
    return 1500


def bridge_problems(lab_id: str, address: str, mtu: int) -> list[str]:
    """Return how the bridge of the lab differs."""
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
    """Create or change the bridge of the lab."""
    bridge = bridge_name(lab_id)
    if not link_exists(bridge):
        run(["ip", "link", "add", bridge, "type", "bridge"])
    run(["ip", "address", "flush", "dev", bridge])
    run(["ip", "address", "add", address, "dev", bridge])
    run(["ip", "link", "set", bridge, "mtu", str(mtu), "up"])


def has_table(lab_id: str, rules: str | None = None) -> bool:
    """Return whether the nftables table of the lab exists, and has the rules if they are given."""
    done = run(["nft", "list", "table", "ip", table_name(lab_id)], check=False)
    if done.returncode != 0 or rules is None:
        return done.returncode == 0
    have = {line.strip() for line in done.stdout.splitlines()}
    wanted = {line.strip() for line in rules.splitlines()}
    return {line for line in wanted if line.endswith((" accept", " drop", " masquerade"))} <= have


def set_table(lab_id: str, subnet: str) -> None:
    run(["nft", "-f", "-"], text=network_table(lab_id, subnet))


def forward_drops(ruleset: list[dict[str, Any]], lab_id: str) -> list[str]:
    """Return chains of other tables that drop forwarded packets by default, whatever our table accepts."""
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
    """Return a warning if other chains drop forwarded packets, or an empty string."""
    done = run(["nft", "-json", "list", "chains"], check=False)
    if done.returncode != 0:
        return ""
    chains = forward_drops(json.loads(done.stdout).get("nftables", []), lab_id)
    if not chains:
        return ""
    bridge = bridge_name(lab_id)
    return (
        f"This computer drops forwarded packets by default (nftables chain {', '.join(chains)}), including those "
        "of the lab unless a rule there accepts them. If machines cannot reach the package archive: "
        # The + includes the bridges of the interfaces beside eth0.
        f"iptables -I FORWARD -i {bridge}+ -j ACCEPT; iptables -I FORWARD -o {bridge}+ -j ACCEPT"
    )


# ------------------------------------------------------------------ settings that all labs share
def remember_computer() -> None:
    """Record settings before the first lab, which are restored after the last one."""
    if not COMPUTER_RECORD.exists():
        found = {"ip_forward": IP_FORWARD.read_text().strip(), "netns_mount": str(bool(mounts_below(str(NETNS))))}
        write_file(COMPUTER_RECORD, json.dumps(found) + "\n")


def restore_computer() -> None:
    """Restore the recorded settings."""
    found = read_json(COMPUTER_RECORD)
    if found.get("ip_forward") == "0":
        IP_FORWARD.write_text("0\n")
    # ip netns leaves its directory as a mount point, which other namespaces may use.
    if found.get("netns_mount") == "False" and NETNS.is_dir() and not any(NETNS.iterdir()):
        for point in mounts_below(str(NETNS)):
            run(["umount", point])
        NETNS.rmdir()
    COMPUTER_RECORD.unlink(missing_ok=True)


# ------------------------------------------------------------------ resolvers
def usable_nameservers(resolv_conf: str) -> list[str]:
    """Return the resolvers in a resolv.conf that are not loopback addresses."""
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
    """Return resolv.conf for a machine. The second file has the resolvers behind the stub of systemd-resolved."""
    if nameservers:
        return "".join(f"nameserver {address}\n" for address in nameservers)
    for path in files:
        text = path.read_text() if path.exists() else ""
        found = usable_nameservers(text)
        if found:
            kept = [line for line in text.splitlines() if line.split()[:1] in (["search"], ["domain"])]
            return "\n".join([*kept, *(f"nameserver {address}" for address in found)]) + "\n"
    raise LabError(
        f"None of {', '.join(map(str, files))} names a resolver that a lab machine can reach (127.0.0.0/8 would be "
        "the machine itself). Set lab_nameservers to a list of resolver addresses."
    )
