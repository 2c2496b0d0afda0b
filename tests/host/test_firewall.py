# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What is reachable from a guest, from a stranger on the management network, for a local user, and from a compute.

Each place tries every port on which something listens, and every port of docs/operate/firewall.md, and finds those open
that the page names.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operate" / "firewall.md"
SSH = (
    "ssh -i /root/.ssh/kilonova_id_ed25519 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
    "-o LogLevel=ERROR -o ConnectTimeout=10"
)
# Prints those of the ports of an address to which a connection is made.
SCAN = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def answers(target):
    try:
        socket.create_connection(tuple(target), timeout=3).close()
    except OSError:
        return False
    return True
targets = json.loads(sys.argv[1])
with ThreadPoolExecutor(200) as pool:
    print(json.dumps([target for target, found in zip(targets, pool.map(answers, targets)) if found]))
"""


class Line(NamedTuple):
    """A line of the table."""

    ports: range
    on: set[str]
    sources: str
    users: str


def page(clustered: bool) -> list[Line]:
    """The TCP ports of the table of the page; with several controllers, those of the second one instead or as well."""
    lines: dict[str, Line] = {}
    first, _, second = PAGE.read_text().partition("### Several controllers")
    for text in (first + second if clustered else first).splitlines():
        if match := re.match(r"\| (\d+)(?:-(\d+))? \|.*?\| (.*?) \| (.*?) \| (.*?) \|$", text):
            begin, last, on, sources, users = match.groups()
            lines[begin] = Line(range(int(begin), int(last or begin) + 1), {*on.split(", ")}, sources, users)
    assert lines
    return list(lines.values())


def listening(host: Any) -> list[tuple[str, int]]:
    """Addresses and ports of all TCP listeners of a host."""
    found = []
    for line in host.check_output("ss -H -l -n -t").splitlines():
        address, _, port = line.split()[3].rpartition(":")
        found.append((address.strip("[]").partition("%")[0], int(port)))
    return found


def candidates(host: Any, address: str) -> list[tuple[str, int]]:
    """Ports to try at an address: those on which something listens there, and the first ones of the table."""
    everywhere = {"0.0.0.0", "*", "::", address}
    ports = {port for own, port in listening(host) if own in everywhere} | {line.ports[0] for line in page(True)}
    return [(address, port) for port in sorted(ports)]


def scan(python: Callable[[str], str], targets: Iterable[tuple[str, int]]) -> set[int]:
    """Try targets from where a command runs, and return the open ports."""
    encoded = base64.b64encode(SCAN.encode()).decode()
    script = f'import base64; exec(base64.b64decode("{encoded}"))'
    return {port for _, port in json.loads(python(f"/usr/bin/python3 -c '{script}' '{json.dumps(list(targets))}'"))}


def names_of(site: Any) -> set[str]:
    """What the page calls a host."""
    found = {"storage hosts" if group == "storage" else f"{group}s" for group in site.groups}
    return {"all hosts", *found, *(["hosts"] if found & {"controllers", "computes"} else [])}


def allowed(site: Any, *sources: str) -> set[int]:
    """The ports that the page opens on a host for sources."""
    on = names_of(site)
    names = set(sources)
    return {
        port
        for line in page(site.clustered)
        if line.on & on and names & {source.strip() for source in line.sources.split(",")}
        for port in line.ports
    }


def listens(host: Any, ports: set[int]) -> set[int]:
    """Those of the ports on which something listens that others than this host could reach."""
    return {port for address, port in listening(host) if port in ports and not address.startswith("127.")}


@pytest.fixture
def stranger(site: Any) -> Iterator[Callable[[str], str]]:
    """Run a command with an address of the management network that is none of a host, on the computer of the lab."""
    (route,) = json.loads(subprocess.check_output(["ip", "-json", "route", "get", site.management_address]))
    device = route["dev"]
    if os.geteuid() != 0 or not Path(f"/sys/class/net/{device}/bridge").is_dir():
        pytest.skip("needs root on the computer of a lab")
    (link,) = json.loads(subprocess.check_output(["ip", "-json", "-4", "address", "show", "dev", device]))
    own = link["addr_info"][0]
    address = ipaddress.ip_interface(f"{own['local']}/{own['prefixlen']}").network[-6]

    def ip(command: str) -> None:
        subprocess.run(["ip", *command.split()], check=True)

    ip("netns add kn-stranger")
    try:
        ip("link add kn-out type veth peer name kn-in netns kn-stranger")
        ip(f"link set kn-out master {device} up")
        ip(f"-n kn-stranger address add {address}/{own['prefixlen']} dev kn-in")
        ip("-n kn-stranger link set kn-in up")
        yield lambda command: subprocess.check_output(
            ["ip", "netns", "exec", "kn-stranger", "sh", "-c", command], text=True
        )
    finally:
        ip("netns delete kn-stranger")


@pytest.mark.on("controller", "compute")
def test_a_stranger_reaches_the_front_doors_and_ssh(site: Any, host: Any, stranger: Callable[[str], str]) -> None:
    wanted = listens(host, allowed(site, "`firewall_api_sources`", "`firewall_ssh_sources`"))
    assert scan(stranger, candidates(host, site.management_address)) == wanted


@pytest.fixture(scope="module")
def in_guest(gateway: Any) -> Callable[[str], str]:
    """Run a command in my_vm, over ssh from the controller."""
    host = gateway.connect()
    done = host.run(f". /root/openrc && openstack server show {gateway.server} -f json")
    address = next(iter(json.loads(done.stdout)["addresses"].values()))[0]
    return lambda command: str(host.check_output(f"{SSH} guest@{address} %s", command))


@pytest.mark.on("controller", "compute")
def test_a_guest_reaches_the_front_doors(site: Any, host: Any, gateway: Any, in_guest: Callable[[str], str]) -> None:
    """At each address of the host: that of management, and that of the gateway of guests."""
    wanted = listens(host, allowed(site, "`firewall_api_sources`"))
    inside = str(ipaddress.ip_network(site.fixed_range)[1])
    addresses = [site.management_address] + ([inside] if site.name == gateway.name and not site.fixed_gateway else [])
    for address in addresses:
        targets = candidates(host, address)
        tries = "; ".join(
            f"(nc -w 3 {address} {port} </dev/null >/dev/null 2>&1 && echo {port}) &" for _, port in targets
        ).replace("&;", "&")
        found = {int(port) for port in in_guest(f"{tries} wait").split()}
        assert found == (wanted if address == site.management_address else set()), address


@pytest.mark.on("controller", "compute")
def test_a_local_user_reaches_no_port_of_a_service(site: Any, host: Any) -> None:
    """Over loopback, a user reaches what the page opens to all users, and the front doors at the API address."""
    on = names_of(site)
    users = {port: line.users for line in page(site.clustered) if line.on & on for port in line.ports}
    front = allowed(site, "`firewall_api_sources`")

    def nobody(command: str) -> str:
        return str(host.check_output("runuser -u nobody -- sh -c %s", command))

    targets = [(address, port) for address, port in listening(host) if port in users and ":" not in address]
    targets = [("127.0.0.1" if address in ("0.0.0.0", "*") else address, port) for address, port in targets]
    assert targets
    for local in (True, False):
        chosen = [(address, port) for address, port in targets if address.startswith("127.") is local]
        wanted = {port for _, port in chosen if users[port] == "all users" or (port in front | {8775} and not local)}
        assert scan(nobody, chosen) == wanted


@pytest.mark.on("controller", "compute")
def test_hosts_reach_each_other_as_the_page_says(site: Any, host: Any, hosts_sites: tuple[Any, ...]) -> None:
    others = [other for other in hosts_sites if other.name != site.name]
    if not others:
        pytest.skip("needs two hosts")
    for other in others:
        names = {*names_of(other), "`firewall_api_sources`", "`firewall_ssh_sources`"}
        found = scan(other.connect().check_output, candidates(host, site.management_address))
        assert found == listens(host, allowed(site, *names)), other.name


@pytest.mark.on("compute")
def test_the_host_does_not_answer_on_devices_of_guests(site: Any, host: Any) -> None:
    """A device with the name of a guest's, and a neighbour there: neither IPv6 nor ARP nor IP is answered."""
    script = f"""
        set -e
        trap 'ip netns delete kn-guest; ip link delete tapkn-test 2>/dev/null' EXIT
        ip netns add kn-guest
        ip link add tapkn-test type veth peer name kn-in netns kn-guest
        ip link set tapkn-test up
        ip -n kn-guest address add 198.51.100.7/24 dev kn-in nodad
        ip -n kn-guest link set kn-in up
        ip -n kn-guest route add {site.management_address} dev kn-in
        mac=$(cat /sys/class/net/tapkn-test/address)
        ip netns exec kn-guest ping -c 1 -W 2 {site.management_address} && echo answers ARP
        ip -n kn-guest neigh replace {site.management_address} lladdr $mac dev kn-in
        ip netns exec kn-guest ping -c 1 -W 2 {site.management_address} && echo answers IP
        ip netns exec kn-guest ping -6 -c 2 -W 2 ff02::1%kn-in | grep 'bytes from' | grep -v "$(ip -n kn-guest -6 -o \
            address show dev kn-in scope link | awk '{{ sub("/.*", "", $4); print $4 }}')" && echo answers IPv6
        echo done
    """
    output = host.check_output("sh -c %s", script.replace("set -e", "set +e"))
    assert output.splitlines()[-1] == "done"
    assert not re.search(r"answers", output), output


@pytest.mark.on("controller", "compute")
def test_guests_do_not_serve_dhcp_to_the_site(site: Any, host: Any) -> None:
    """What leaves Open vSwitch for the bridge is filtered where it enters, and marked."""
    rules = host.check_output("nft list table netdev kilonova_filter")
    assert f'device "{site.bridge}-ovs"' in rules
    assert "udp sport 67 udp dport 68" in rules and "nd-router-advert" in rules
    assert "meta mark set meta mark | 0x04000000" in rules


@pytest.mark.on("controller", "compute")
def test_rules_are_kept_for_the_next_boot(host: Any) -> None:
    for name in ("firewall", "firewall-guests"):
        assert (
            host.file(f"/var/lib/kilonova/firewall/{name}.nft").content
            == host.file(f"/etc/kilonova/{name}.nft").content
        )
    assert host.service("kilonova-firewall").is_enabled and host.service("kilonova-firewall").is_running
    assert not host.file("/var/lib/kilonova/firewall/armed").exists
