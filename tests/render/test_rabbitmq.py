# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ of several controllers: who is a member, who may become one, and whom clients ask."""

from __future__ import annotations

import json
import re

import pytest
from cryptography import x509

from tests.render import rendering

COOKIE = "/var/lib/rabbitmq/.erlang.cookie"


@pytest.fixture(scope="module")
def three() -> rendering.Sample:
    return rendering.load("clustered")


def file(sample: rendering.Sample, host: str, dest: str) -> rendering.File:
    (found,) = [one for one in sample.files(host) if one.dest == dest]
    return found


def text(sample: rendering.Sample, host: str, dest: str) -> str:
    found = file(sample, host, dest).text
    assert found
    return found


def controllers(sample: rendering.Sample) -> list[str]:
    return [host for host in sample.hosts() if "controller" in sample.variables(host)["group_names"]]


def test_each_member_knows_all_and_has_its_own_name(three: rendering.Sample) -> None:
    hosts = controllers(three)
    for host in hosts:
        settings = text(three, host, "/etc/rabbitmq/rabbitmq.conf")
        found = re.findall(r"^cluster_formation.classic_config.nodes.\d = rabbit@(\S+)$", settings, re.MULTILINE)
        assert found == hosts
        assert f"NODENAME=rabbit@{host}\n" in text(three, host, "/etc/rabbitmq/rabbitmq-env.conf")
        names = re.findall(r'\["(.+)"\]\}\.$', text(three, host, "/etc/rabbitmq/inetrc"), re.MULTILINE)
        assert names == hosts


def test_a_broker_is_accepted_under_the_address_of_each(three: rendering.Sample) -> None:
    """oslo.messaging asks every broker for the name of the first one that it tried."""
    addresses = {three.variables(host)["ansible_host"] for host in controllers(three)}
    for host in controllers(three):
        pem = text(three, host, "/etc/rabbitmq/tls/server-cert.pem")
        names = x509.load_pem_x509_certificate(pem.encode()).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        assert {str(one) for one in names.value.get_values_for_type(x509.IPAddress)} == addresses


def test_a_member_is_known_by_a_certificate_that_nobody_else_has(three: rendering.Sample) -> None:
    for host in controllers(three):
        (authority,) = x509.load_pem_x509_certificates(
            text(three, host, "/etc/rabbitmq/tls/cluster-ca-cert.pem").encode()
        )
        mine = x509.load_pem_x509_certificate(text(three, host, "/etc/rabbitmq/tls/cluster-cert.pem").encode())
        mine.verify_directly_issued_by(authority)
        names = mine.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [host]
        issued = [one.dest for one in three.files(host) if one.text and issued_by(one.text, authority)]
        assert set(issued) == {"/etc/rabbitmq/tls/cluster-ca-cert.pem", "/etc/rabbitmq/tls/cluster-cert.pem"}
        options = text(three, host, "/etc/rabbitmq/distribution.config")
        assert options.count("{verify, verify_peer}") == 2
        assert "{fail_if_no_peer_cert, true}" in options


def issued_by(content: str, authority: x509.Certificate) -> bool:
    if "BEGIN CERTIFICATE" not in content:
        return False
    found = x509.load_pem_x509_certificates(content[content.index("-----BEGIN CERTIFICATE") :].encode())
    return any(one.issuer == authority.subject for one in found)


def test_the_cookie_is_a_secret_that_members_share(three: rendering.Sample) -> None:
    files = [file(three, host, COOKIE) for host in controllers(three)]
    assert {(one.text, one.mode) for one in files} == {(f"{rendering.SECRET}\n", "0400")}


def test_a_single_controller_has_none_of_it(sample: rendering.Sample) -> None:
    if len(controllers(sample)) > 1:
        return
    (host,) = controllers(sample)
    dests = {one.dest for one in sample.files(host)}
    assert not dests & {COOKIE, "/etc/rabbitmq/distribution.config", "/etc/rabbitmq/inetrc"}
    assert "NODENAME=rabbit@localhost\n" in text(sample, host, "/etc/rabbitmq/rabbitmq-env.conf")


def test_a_member_that_was_away_brings_no_accounts_back(three: rendering.Sample) -> None:
    for host in controllers(three):
        assert "load_definitions = /etc/rabbitmq/virtual-hosts.json\n" in text(
            three, host, "/etc/rabbitmq/rabbitmq.conf"
        )
        assert set(json.loads(text(three, host, "/etc/rabbitmq/virtual-hosts.json"))) == {"vhosts"}


def test_clients_ask_all_brokers_and_that_of_their_host_first(three: rendering.Sample) -> None:
    everywhere = {three.variables(host)["ansible_host"] for host in controllers(three)}
    for host in controllers(three):
        for dest in ("/etc/nova/nova.conf", "/etc/neutron/neutron.conf"):
            (url,) = re.findall(r"^transport_url = (.+)$", text(three, host, dest), re.MULTILINE)
            brokers = re.findall(r"@([0-9.]+):5671", url)
            assert brokers[0] == three.variables(host)["ansible_host"]
            assert set(brokers) == everywhere
            assert len(brokers) == len(everywhere)
