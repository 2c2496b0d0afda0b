# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Networks across computes, and guests that move. Needs two computes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

NAMES = ("kn-flat-1", "kn-flat-2", "kn-tenant-1", "kn-tenant-2")
REMOVE = """
for name in ARGUMENTS[0]:
    if (server := nova.find_server(name)):
        nova.delete_server(server)
wait(lambda: not [s for s in nova.servers(name="^kn-")], 120, "the removal of the guests")
for ip in cloud.network.ips(description="kn"):
    cloud.network.delete_ip(ip)
if (router := cloud.network.find_router("kn")):
    for port in cloud.network.ports(device_id=router.id):
        if port.device_owner == "network:router_interface":
            cloud.network.remove_interface_from_router(router, port_id=port.id)
    cloud.network.delete_router(router)
if (network := cloud.network.find_network("kn")):
    cloud.network.delete_network(network)
"""
CREATE = """
names, computes, flat_network = ARGUMENTS
flat = cloud.network.find_network(flat_network)
was_external = flat.is_router_external
cloud.network.update_network(flat, is_router_external=True)
tenant = cloud.network.create_network(name="kn")
subnet = cloud.network.create_subnet(network_id=tenant.id, name="kn", ip_version=4, cidr="10.99.0.0/24")
router = cloud.network.create_router(name="kn", external_gateway_info={"network_id": flat.id})
cloud.network.add_interface_to_router(router, subnet_id=subnet.id)
my_vm = nova.find_server("my_vm", details=True)
image, flavor = my_vm.image.id, nova.find_flavor(my_vm.flavor.name)
made = []
for index, name in enumerate(names):
    network = flat if "flat" in name else tenant
    made.append(nova.create_server(name=name, image_id=image, flavor_id=flavor.id, key_name=my_vm.key_name,
                                   networks=[{"uuid": network.id}], host=computes[index % 2]))
servers = {server.name: settled(server.id) for server in made}
port = next(cloud.network.ports(device_id=servers["kn-tenant-1"].id))
floating = cloud.network.create_ip(floating_network_id=flat.id, port_id=port.id, description="kn")
for server in servers.values():
    ready(server)
print(json.dumps({"addresses": {name: address(server) for name, server in servers.items()},
                  "hosts": {name: server.compute_host for name, server in servers.items()},
                  "floating": floating.floating_ip_address, "was_external": was_external}))
"""
RESTORE = """
_, flat_network, was_external = ARGUMENTS
flat = cloud.network.find_network(flat_network)
cloud.network.update_network(flat, is_router_external=was_external)
"""
# What a host does with the packets of its guests.
NETWORK = """
hostname
ip -brief link
ovs-vsctl --format=json --columns=name,ofport,ifindex,error,external_ids,statistics list Interface
ovs-ofctl --no-names dump-flows br-int | grep tp_src=68
tail -n 20 /var/log/openvswitch/ovs-vswitchd.log /var/log/ovn/ovn-controller.log
"""
SSH = (
    "ssh -i /root/.ssh/kilonova_id_ed25519 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
    "-o LogLevel=ERROR -o ConnectTimeout=10"
)
InGuest = Callable[[str, str], Any]
LOSS = re.compile(r"(\d+) packets transmitted, (\d+) received")


@pytest.fixture(scope="module")
def computes(hosts_sites: tuple[Any, ...]) -> list[str]:
    found = [site.name for site in hosts_sites if "compute" in site.groups]
    if len(found) < 2:
        pytest.skip("needs two computes")
    return found


@pytest.fixture(scope="module")
def guests(on_cloud: Callable[..., Any], computes: list[str], hosts_sites: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """Two guests on the flat network and two on a tenant network, one of each on each compute."""
    on_cloud(REMOVE, NAMES)
    try:
        made = on_cloud(CREATE, NAMES, computes[:2], "nova")
    except AssertionError as error:
        shown = [site.connect().run(NETWORK).stdout for site in hosts_sites if site.name in computes[:2]]
        raise AssertionError("\n".join([str(error), *shown])) from None
    yield made
    on_cloud(REMOVE + RESTORE, NAMES, "nova", made["was_external"])


@pytest.fixture(scope="module")
def in_guest(gateway: Any) -> InGuest:
    host = gateway.connect()
    # testinfra takes status 255 of ssh for a failed connection to the host, and gives up.
    return lambda address, command: host.run(f"{SSH} guest@{address} '{command}' || exit 1")


def test_guests_run_where_they_were_put(guests: dict[str, Any], computes: list[str]) -> None:
    assert guests["hosts"]["kn-flat-1"] == guests["hosts"]["kn-tenant-1"] == computes[0]
    assert guests["hosts"]["kn-flat-2"] == guests["hosts"]["kn-tenant-2"] == computes[1]


def test_flat_network_across_computes(guests: dict[str, Any], in_guest: InGuest) -> None:
    done = in_guest(guests["addresses"]["kn-flat-1"], f"sudo ping -c 5 -w 10 {guests['addresses']['kn-flat-2']}")
    assert "5 packets received" in done.stdout, done.stdout + done.stderr


def test_floating_address(guests: dict[str, Any], in_guest: InGuest) -> None:
    done = in_guest(guests["floating"], "hostname")
    assert done.stdout.strip() == "kn-tenant-1", done.stderr


def test_tenant_network_across_computes(guests: dict[str, Any], in_guest: InGuest) -> None:
    """Send packets of nearly the MTU through geneve."""
    # In user space, Open vSwitch drops the first packet while it resolves the MAC of the other tunnel end.
    in_guest(guests["floating"], f"sudo ping -c 1 -w 5 {guests['addresses']['kn-tenant-2']}")
    done = in_guest(guests["floating"], f"sudo ping -c 5 -w 10 -s 1200 {guests['addresses']['kn-tenant-2']}")
    assert "5 packets received" in done.stdout, done.stdout + done.stderr


def test_tunnels_leave_by_their_own_interface(
    guests: dict[str, Any], in_guest: InGuest, hosts_sites: tuple[Any, ...]
) -> None:
    site = next(site for site in hosts_sites if site.name == guests["hosts"]["kn-tenant-1"])
    if not site.tunnel_interface:
        pytest.skip("tunnels have no interface of their own here")
    host = site.connect()
    end = host.check_output("ovs-vsctl get open_vswitch . external_ids:ovn-encap-ip").strip('"')
    assert end != site.management_address
    assert end in host.check_output("ip -4 -brief address show dev kilonova-tunnel")

    def sent(interface: str) -> int:
        return int(host.check_output(f"cat /sys/class/net/{interface}/statistics/tx_bytes"))

    before = {name: sent(name) for name in (site.tunnel_interface, site.flat_interface)}
    count, size = 20, 1200
    other = guests["addresses"]["kn-tenant-2"]
    done = in_guest(guests["floating"], f"sudo ping -q -A -c {count} -w 20 -s {size} {other}")
    assert f"{count} packets received" in done.stdout, done.stdout + done.stderr
    assert sent(site.tunnel_interface) - before[site.tunnel_interface] > count * size
    assert sent(site.flat_interface) - before[site.flat_interface] < count * size


def test_tenant_guest_reaches_the_outside(guests: dict[str, Any], in_guest: InGuest) -> None:
    """A guest reaches the outside through the router, with SNAT. A guest on the flat network stands for the outside."""
    done = in_guest(guests["floating"], f"sudo ping -c 3 -w 10 {guests['addresses']['kn-flat-2']}")
    assert "3 packets received" in done.stdout, done.stdout + done.stderr


def test_every_compute_serves_metadata(guests: dict[str, Any], hosts_sites: tuple[Any, ...]) -> None:
    for site in hosts_sites:
        if site.name in guests["hosts"].values():
            namespaces = site.connect().check_output("ip netns list")
            assert len(re.findall(r"^ovnmeta-", namespaces, re.MULTILINE)) >= 2


# At the same time: each takes two boots of an emulated guest.
MOVE = """
keep, back, moved = ARGUMENTS
small = nova.find_flavor("m1.small")
before, there, now = ({}, {}, {})
def note(where, server):
    where[server.name] = [server.compute_host, server.flavor.name]
for name in ARGUMENTS:
    server = nova.find_server(name, details=True)
    note(before, settled(server.id))
    if name == moved:
        nova.migrate_server(server.id)
    else:
        nova.resize_server(server.id, small.id)
for name in ARGUMENTS:
    note(there, settled(nova.find_server(name).id, "VERIFY_RESIZE"))
nova.confirm_server_resize(nova.find_server(keep))
nova.confirm_server_resize(nova.find_server(moved))
# Nova would wait a minute for a guest that is switched off while it boots.
ready(nova.find_server(back))
nova.revert_server_resize(nova.find_server(back))
for name in ARGUMENTS:
    note(now, settled(nova.find_server(name).id))
print(json.dumps([before, there, now]))
"""


def test_migration_and_resize(guests: dict[str, Any], on_cloud: Callable[..., Any], in_guest: InGuest) -> None:
    """Both copy the disk to another compute, over ssh as user nova. Reverting a resize moves the guest back."""
    before, there, now = on_cloud(MOVE, "kn-flat-2", "kn-flat-1", "kn-tenant-2")
    for name, flavor in {"kn-flat-1": "m1.small", "kn-flat-2": "m1.small", "kn-tenant-2": "m1.tiny"}.items():
        assert there[name][0] != before[name][0]
        assert there[name][1] == flavor
    assert now == {**there, "kn-flat-1": before["kn-flat-1"]}
    # Memory without that of the kernel, and the disk in sectors.
    command = "hostname; grep MemTotal /proc/meminfo; cat /sys/class/block/vda/size"
    for name, memory, disk in (("kn-flat-2", 2048, 20), ("kn-flat-1", 512, 1)):
        found: list[str] = []

        def answers(address: str = guests["addresses"][name], found: list[str] = found) -> bool:
            found[:] = in_guest(address, command).stdout.split()
            return bool(found)

        assert _eventually(answers), name
        assert found[0] == name
        assert 0.8 * memory < int(found[2]) / 1024 < memory
        assert int(found[4]) * 512 == disk * 1024**3
    moved = f"sudo ping -c 1 -w 5 {guests['addresses']['kn-tenant-2']}"
    assert _eventually(lambda: "1 packets received" in in_guest(guests["floating"], moved).stdout)


def test_live_migration(gateway: Any, on_cloud: Callable[..., Any], in_guest: InGuest, computes: list[str]) -> None:
    """my_vm moves with its disk while it runs, and loses few packets."""
    host = gateway.connect()
    address = on_cloud('print(json.dumps(address(nova.find_server("my_vm", details=True))))')
    before = float(in_guest(address, "cut -d. -f1 /proc/uptime").stdout)
    host.check_output(f"systemd-run --quiet --unit=kn-ping --service-type=exec ping -i 0.2 -w 280 {address}")
    try:
        moved = on_cloud(
            """
server = nova.find_server("my_vm", details=True)
nova.live_migrate_server(server, host=None, block_migration="auto")
now = wait(lambda: (now := nova.get_server(server.id)).compute_host != server.compute_host and not now.task_state
           and now, 280, "the migration")
print(json.dumps([server.compute_host, now.compute_host]))
"""
        )
    finally:
        host.run("systemctl kill --signal=INT kn-ping; while systemctl is-active --quiet kn-ping; do sleep 0.2; done")
    sent, received = _packets(host.check_output("journalctl --unit=kn-ping --output=cat --no-pager"))
    print(f"live migration: {sent - received} of {sent} packets lost")
    assert moved[0] != moved[1]
    assert float(in_guest(address, "cut -d. -f1 /proc/uptime").stdout) > before, "the guest was restarted"
    # Three seconds, at one packet every 0.2 s.
    assert sent - received <= 15


@pytest.mark.on("compute")
def test_migration_needs_a_certificate(run_python: Callable[..., Any], site: Any, computes: list[str]) -> None:
    """libvirt sends one byte to clients that it accepts, and nothing to others."""
    script = """
import socket, ssl
def answer(certificate):
    context = ssl.create_default_context(cafile="/etc/pki/CA/cacert.pem")
    if certificate:
        context.load_cert_chain("/etc/pki/libvirt/clientcert.pem", "/etc/pki/libvirt/private/clientkey.pem")
    plain = socket.create_connection((ARGUMENTS[0], 16514), timeout=10)
    try:
        with context.wrap_socket(plain, server_hostname=ARGUMENTS[0]) as connection:
            return connection.recv(1).hex()
    except OSError:
        return ""
print(json.dumps([answer(False), answer(True)]))
"""
    assert run_python(script, site.management_address) == ["", "01"]


def _packets(text: str) -> tuple[int, int]:
    found = LOSS.findall(text)
    assert found, text[-500:]
    sent, received = found[-1]
    return int(sent), int(received)


def _eventually(condition: Callable[[], bool], tries: int = 30) -> bool:
    # Each try takes as long as ssh does.
    return any(condition() for _ in range(tries))
