# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Who has which certificate for OVN's databases, and where they listen."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from plugins.filter.services import reachable_ports
from tests.render import rendering


def text(sample: rendering.Sample, host: str, dest: str) -> str:
    (found,) = [file.text for file in sample.files(host) if file.dest == dest]
    assert found
    return found


def certificate(sample: rendering.Sample, host: str, dest: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(text(sample, host, dest).encode())


def common_name(name: x509.Name) -> str:
    (attribute,) = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(attribute.value)


def controller(sample: rendering.Sample) -> str:
    return next(host for host in sample.hosts() if "controller" in sample.variables(host)["group_names"])


@pytest.fixture
def one_controller(sample: rendering.Sample) -> str:
    """The only controller. In a cluster, what connections there are is in files (below)."""
    (*_, last) = controllers = sample.variables(controller(sample))["groups"]["controller"]
    if len(controllers) > 1:
        pytest.skip("a cluster")
    return str(last)


def argument(sample: rendering.Sample, host: str, service: str, module: str) -> dict[str, Any]:
    """Return the arguments of a check of a service."""
    found = next(one for one in sample.services(host) if one["name"] == service)
    return dict(next(check["args"] for check in found["checks"] if check["module"] == module))


def test_a_chassis_has_a_certificate_in_its_name(sample: rendering.Sample) -> None:
    # Hosts that only store have no tunnels.
    hosts = [one for one in sample.hosts() if "ovn_chassis" in {service["name"] for service in sample.services(one)}]
    for host in hosts:
        mine = certificate(sample, host, "/etc/ovn/chassis.pem")
        name = text(sample, host, "/etc/openvswitch/system-id.conf").strip()
        assert common_name(mine.subject) == name
        assert argument(sample, host, "ovn_chassis", "ovs_chassis")["external_ids"]["system-id"] == name
        key = serialization.load_pem_private_key(text(sample, host, "/etc/ovn/chassis.pem").encode(), None)
        assert key.public_key() == mine.public_key()
    names = {text(sample, host, "/etc/openvswitch/system-id.conf") for host in hosts}
    assert len(names) == len(hosts)


def test_a_chassis_can_be_no_server_and_reach_no_northbound_database(
    sample: rendering.Sample, one_controller: str
) -> None:
    """Clients and the northbound server know the authority of servers and Neutron only."""
    main = one_controller
    servers = certificate(sample, main, "/etc/ovn/ca-cert.pem")
    mine = certificate(sample, main, "/etc/ovn/chassis.pem")
    for path in ("/etc/ovn/server.pem", "/etc/neutron/ovn-cert.pem"):
        certificate(sample, main, path).verify_directly_issued_by(servers)
    assert text(sample, main, "/etc/ovn/chassis-ca-cert.pem") == text(sample, main, "/etc/ovn/ca-cert.pem")
    with pytest.raises(ValueError, match="Issuer"):
        mine.verify_directly_issued_by(servers)
    both = x509.load_pem_x509_certificates(text(sample, main, "/etc/ovn/clients-ca-certs.pem").encode())
    assert both[0] == servers
    mine.verify_directly_issued_by(both[1])
    databases = argument(sample, main, "ovn_central", "ovn_databases")["databases"]
    assert [one["ca_cert"] for one in databases] == ["/etc/ovn/ca-cert.pem", "/etc/ovn/clients-ca-certs.pem"]


def test_only_the_port_of_chassis_is_reached_from_elsewhere(sample: rendering.Sample, one_controller: str) -> None:
    databases = argument(sample, one_controller, "ovn_central", "ovn_databases")["databases"]
    connections = [one for found in databases for one in found["connections"]]
    assert all(one["target"].startswith("pssl:") for one in connections)
    (outside,) = [one for one in connections if not one["target"].endswith(":127.0.0.1")]
    assert outside["role"] == "ovn-controller"


@pytest.mark.parametrize("database", ["nb", "sb"])
def test_a_run_that_moves_a_cloud_to_tls_serves_both(sample: rendering.Sample, database: str) -> None:
    main = controller(sample)
    name = f"ovn_central_{database}_connections"
    with_tls, both = (
        sample.templar(main, {"cloud_plain": plain}).template(sample.variables(main)[name]) for plain in (False, True)
    )
    assert both[:-1] == with_tls
    assert both[-1]["target"].startswith("ptcp:664")
    assert not both[-1].get("role")


@pytest.fixture(scope="module")
def three() -> rendering.Sample:
    return rendering.load("clustered")


def server(sample: rendering.Sample, host: str, name: str) -> dict[str, Any]:
    return dict(json.loads(text(sample, host, f"/etc/ovn/{name}.json")))


def test_chassis_reach_a_server_of_their_own_in_a_cluster(three: rendering.Sample) -> None:
    """The members of a cluster accept whoever has a certificate of an authority that they know."""
    for host in three.hosts():
        address = three.variables(host)["ansible_host"]
        for unit in ("nb", "sb"):
            options = text(three, host, f"/etc/systemd/system/ovn-ovsdb-server-{unit}.service.d/kilonova-cluster.conf")
            assert "--ca-cert=/etc/ovn/ca-cert.pem\n" in options
            # A server without a file would make one.
            assert f"AssertPathExists=/var/lib/ovn/ovn{unit}_db.db\n" in options
        relay = server(three, host, "relay")
        assert {name: options["role"] for name, options in relay["remotes"].items()} == {
            f"pssl:16642:{address}": "ovn-controller"
        }
        assert relay["databases"]["OVN_Southbound"]["service-model"] == "relay"
        for name in ("northbound", "southbound"):
            (outside,) = [one for one in server(three, host, name)["remotes"] if not one.startswith("punix:")]
            assert outside.endswith(f":{address}")


def test_everybody_knows_all_members(three: rendering.Sample) -> None:
    addresses = [three.variables(host)["ansible_host"] for host in three.hosts()]
    for host in three.hosts():
        remote = argument(three, host, "ovn_chassis", "ovs_chassis")["external_ids"]["ovn-remote"]
        assert remote == ",".join(f"ssl:{one}:16642" for one in addresses)
        # By way of HAProxy, which knows who leads.
        neutron = text(three, host, "/etc/neutron/plugins/ml2/ml2_conf.ini")
        assert "ovn_nb_connection = ssl:127.0.0.1:16651\n" in neutron
        assert "ovn_sb_connection = ssl:127.0.0.1:16653\n" in neutron
        northd = text(three, host, "/etc/default/ovn-central")
        southbound = ",".join(f"ssl:{one}:16643" for one in addresses)
        assert f"--ovn-northd-nb-db=ssl:127.0.0.1:16651 --ovn-northd-sb-db={southbound} " in northd
        proxy = text(three, host, "/etc/haproxy/haproxy.cfg")
        members = list(zip(three.variables(host)["groups"]["controller"], addresses, strict=False))
        for name, port in (("northbound-leader", 16641), ("southbound-member", 16643)):
            section = proxy.split(f"listen ovn-{name}\n")[1].split("\nlisten ")[0]
            servers = re.findall(r"^    server (\S+) (\S+)(?: no-check backup)?$", section, re.MULTILINE)
            assert servers == [(member, f"{address}:{port}") for member, address in members]
        for entry in argument(three, host, "ovn_central", "ovn_cluster")["databases"]:
            port = {"northbound": 6643, "southbound": 6644}[entry["name"]]
            assert entry["members"] == [f"ssl:{one}:{port}" for one in addresses]


def test_only_several_controllers_have_ports_for_members(sample: rendering.Sample, three: rendering.Sample) -> None:
    for cloud in (sample, three):
        host = controller(cloud)
        clustered = cloud.variables(host)["groups"]["controller"][1:] != []
        found = {port["ports"]: port["from"] for port in reachable_ports(cloud.services(host))}
        assert ("6643" in found, "6644" in found) == (clustered, clustered)
        assert found["16641"] == found["16643"] == found["25672"] == (["controller"] if clustered else [])
