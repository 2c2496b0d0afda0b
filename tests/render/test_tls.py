# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Clients and services reach the APIs with TLS, and check the certificate."""

from __future__ import annotations

import configparser
import re
import shutil
import ssl
from pathlib import Path
from typing import Any

import preflight_facts
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from plugins.filter.services import proxied_ports
from tests.render import rendering
from tests.render.test_preflight import problems
from tests.unit.module_utils.preflight.test_certificate import LEAF, MIDDLE, ROOT, issue, pem

HOST = "cloud1"
AUTHORITY = "/etc/kilonova/ca.pem"
SYSTEM = "/etc/ssl/certs/ca-certificates.crt"
# Options with the address of an API. Nova looks up Glance and Neutron in the catalog.
ADDRESSED = re.compile(r"^(auth_url|www_authenticate_uri|public_endpoint|novncproxy_base_url|base_url)$")
CHECKED = {
    "/etc/nova/nova.conf": {"keystone_authtoken", "service_user", "placement", "neutron", "glance", "keystone"},
    "/etc/neutron/neutron.conf": {"keystone_authtoken", "nova", "placement"},
    "/etc/glance/glance-api.conf": {"keystone_authtoken"},
    "/etc/placement/placement.conf": {"keystone_authtoken"},
}
BEHIND_PROXY = [
    "/etc/keystone/keystone.conf",
    "/etc/glance/glance-api.conf",
    "/etc/placement/placement.conf",
    "/etc/neutron/neutron.conf",
    "/etc/nova/nova-api.conf",
]


def files(sample: rendering.Sample, host: str) -> dict[str, str]:
    return {file.dest: file.text for file in sample.files(host) if file.text is not None}


def ini(text: str) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None, strict=False)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(text)
    return parsed


def proxy_of(sample: rendering.Sample, host: str, **changes: Any) -> str:
    """haproxy.cfg with other values of variables."""
    changed = sample.changed(**changes)
    (service,) = [one for one in changed.services(host) if one["name"] == "haproxy"]
    (text,) = [file.text for file in changed.render(host, service) if file.dest == "/etc/haproxy/haproxy.cfg"]
    assert text
    return text


def test_no_service_reaches_an_api_without_tls(rendered: dict[str, list[rendering.File]]) -> None:
    found = 0
    for host, all_files in rendered.items():
        for file in all_files:
            if not file.text or not re.search(r"\.(conf|ini)$", file.dest) or "uwsgi" in file.dest:
                continue
            for line in file.text.splitlines():
                option, _, value = (part.strip() for part in line.partition("="))
                if ADDRESSED.fullmatch(option):
                    assert value.startswith(("https://", "wss://")), f"{host}:{file.dest}: {line}"
                    found += 1
    assert found > 10


def test_services_check_the_certificate(sample: rendering.Sample) -> None:
    for host in sample.hosts():
        for path, text in files(sample, host).items():
            for section in CHECKED[path] & set(ini(text).sections()) if path in CHECKED else ():
                assert ini(text)[section]["cafile"] == AUTHORITY, f"{host}:{path} [{section}]"
    controller = files(sample, sample.hosts()[0])
    for path, sections in CHECKED.items():
        assert sections <= set(ini(controller[path]).sections()), path


def test_every_password_goes_to_an_address_that_is_checked(sample: rendering.Sample) -> None:
    for host in sample.hosts():
        for path, text in files(sample, host).items():
            if path.endswith(".conf") and "auth_type" in text:
                parsed = ini(text)
                for section in parsed.sections():
                    if parsed.has_option(section, "auth_type"):
                        assert parsed[section]["cafile"] == AUTHORITY, f"{host}:{path} [{section}]"


def test_metadata_agents_check_the_certificate(sample: rendering.Sample) -> None:
    texts = [files(sample, host).get("/etc/neutron/neutron_ovn_metadata_agent.ini") for host in sample.hosts()]
    agents = [ini(text)["DEFAULT"] for text in texts if text]
    assert agents
    for agent in agents:
        assert (agent["nova_metadata_protocol"], agent["auth_ca_cert"]) == ("https", AUTHORITY)


def test_apis_know_which_address_clients_used() -> None:
    texts = files(rendering.load("all_in_one"), HOST)
    for path in BEHIND_PROXY:
        assert ini(texts[path])["oslo_middleware"]["enable_proxy_headers_parsing"] == "true", path


def test_clients_check_the_certificate() -> None:
    texts = files(rendering.load("all_in_one"), HOST)
    cloud = yaml.safe_load(texts["/etc/openstack/clouds.yaml"])["clouds"]["admin"]
    assert (cloud["cacert"], cloud["auth"]["auth_url"][:8]) == (AUTHORITY, "https://")
    assert f"export OS_CACERT={AUTHORITY}" in texts["/root/openrc"].splitlines()


def test_the_certificate_of_the_front(sample: rendering.Sample) -> None:
    for host in sample.hosts():
        texts = files(sample, host)
        authority = x509.load_pem_x509_certificate(texts[AUTHORITY].encode())
        if "/etc/haproxy/front.pem" not in texts:
            continue
        certificate = x509.load_pem_x509_certificate(texts["/etc/haproxy/front.pem"].encode())
        certificate.verify_directly_issued_by(authority)
        key = load_pem_private_key(texts["/etc/haproxy/front.pem"].encode(), None)
        assert key.public_key() == certificate.public_key()
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        listed = {str(one.value) for one in names}
        variables = sample.templar(host)
        assert {variables.template(sample.variables(host)["cloud_api_address"]), host} <= listed
        (file,) = [file for file in sample.files(host) if file.dest == "/etc/haproxy/front.pem"]
        assert file.mode == "0600"


def test_every_port_needs_tls() -> None:
    text = files(rendering.load("all_in_one"), HOST)["/etc/haproxy/haproxy.cfg"]
    binds = re.findall(r"^ +bind (?!127\.).*$", text, re.MULTILINE)
    assert len(binds) == 8
    assert [line for line in binds if " ssl crt /etc/haproxy/front.pem " not in line] == []
    assert "ssl-min-ver TLSv1.2" in text
    assert text.count("set-header Strict-Transport-Security max-age=31536000 if { ssl_fc }") == 8


def test_clients_cannot_say_who_they_are() -> None:
    """HAProxy's own headers are the only ones, but for the metadata agents, which ask for guests."""
    text = files(rendering.load("all_in_one"), HOST)["/etc/haproxy/haproxy.cfg"]
    sections = dict(re.findall(r"^listen (\S+)\n((?:    .*\n)*)", text, re.MULTILINE))
    del sections["serial-consoles"]  # Not HTTP.
    assert len(sections) == 8
    for name, section in sections.items():
        assert "del-header Forwarded\n" in section
        assert ("del-header X-Forwarded-For\n" in section) == (name != "nova-metadata")


def test_a_run_that_moves_a_cloud_serves_both() -> None:
    sample = rendering.load("all_in_one")
    text = proxy_of(sample, HOST, cloud_plain=True)
    ports = proxied_ports(sample.services(HOST))
    for port in ports:
        entry = re.search(rf"^frontend {port['name']}-entry\n(?:    .*\n)*", text, re.MULTILINE)
        assert entry and f":{port['port']}\n" in entry[0]
        assert f"use_backend {port['name']}-tls if" in entry[0] and f"default_backend {port['name']}-plain" in entry[0]
        listen = re.search(rf"^listen {port['name']}\n(?:    .*\n)*", text, re.MULTILINE)
        assert listen and len(re.findall(r"bind unix@\S+ mode 600 user haproxy accept-proxy", listen[0])) == 2
    # Preflight of the next run sees it, until it is closed.
    assert preflight_facts.serves_plain(text)
    assert not preflight_facts.serves_plain(proxy_of(sample, HOST))


@pytest.fixture
def own(tmp_path: Path) -> dict[str, str]:
    """Variables with a certificate of an authority of the site."""
    sample = rendering.load("all_in_one")
    address = sample.templar(HOST).template(sample.variables(HOST)["cloud_api_address"])
    path = tmp_path / "key.pem"
    path.write_text(pem(LEAF))
    days = 36500
    return {
        "haproxy_certificate": issue("api", LEAF, "middle", MIDDLE, addresses=(str(address),), days=days),
        "haproxy_certificate_key": str(path),
        "haproxy_certificate_chain": issue("middle", MIDDLE, "root", ROOT, days=days),
        "haproxy_certificate_authority": issue("root", ROOT, "root", ROOT, days=days),
    }


def with_variables(tmp_path: Path, values: dict[str, Any]) -> rendering.Sample:
    inventory = tmp_path / "inventory"
    shutil.copytree(Path(__file__).parent / "all_in_one", inventory)
    (inventory / "host_vars").mkdir()
    (inventory / "host_vars" / f"{HOST}.yml").write_text(yaml.safe_dump(values))
    return rendering.load(str(inventory))


def test_the_certificate_of_the_site(own: dict[str, str], tmp_path: Path) -> None:
    assert problems("all_in_one", HOST, **own) == []
    # Other authorities of the project do not concern it.
    texts = files(with_variables(tmp_path, {**own, "secrets_pki_trusted_seeds": ["x" * 32]}), HOST)
    served = x509.load_pem_x509_certificates(texts["/etc/haproxy/front.pem"].encode())
    assert [one.subject.rfc4514_string() for one in served] == ["CN=api", "CN=middle"]
    assert load_pem_private_key(texts["/etc/haproxy/front.pem"].encode(), None).public_key() == LEAF.public_key()
    assert texts[AUTHORITY].strip() == own["haproxy_certificate_authority"].strip()
    # What OpenSSL loads, HAProxy loads.
    (tmp_path / "front.pem").write_text(texts["/etc/haproxy/front.pem"])
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "front.pem")


def test_an_authority_that_the_hosts_trust(own: dict[str, str], tmp_path: Path) -> None:
    sample = with_variables(tmp_path, {**own, "haproxy_certificate_authority": ""})
    assert AUTHORITY not in files(sample, HOST)
    assert ini(files(sample, HOST)["/etc/nova/nova.conf"])["placement"]["cafile"] == SYSTEM


def test_preflight_refuses_a_certificate_of_another_site(own: dict[str, str]) -> None:
    other = issue("api", LEAF, "middle", MIDDLE, addresses=("203.0.113.9",), days=36500)
    (found,) = problems("all_in_one", HOST, **{**own, "haproxy_certificate": other})
    assert found.startswith("haproxy_certificate = 'CN=api': its names do not include")
    (found,) = problems("all_in_one", HOST, **{**own, "haproxy_certificate_key": "/nonexistent/key.pem"})
    assert found.startswith("haproxy_certificate_key = (hidden): the file cannot be read")


@pytest.mark.parametrize("plain", [True, False])
def test_all_hosts_go_by_what_the_controller_serves(plain: bool) -> None:
    sample = rendering.load("multihost")
    hostvars = {host: {"preflight_facts": {"plain": plain if host == "ctl1" else False}} for host in sample.hosts()}
    for host in sample.hosts():
        found = sample.templar(host, {"hostvars": hostvars}).template(sample.variables(host)["cloud_plain"])
        assert found is plain, host


def test_what_served_without_tls_is_closed_at_the_end() -> None:
    (play,) = yaml.safe_load((rendering.PROJECT / "playbooks" / "close.yml").read_text())
    (roles,) = [task["loop"] for block in play["tasks"] for task in block.get("block", []) if "loop" in task]
    sample = rendering.load("all_in_one")
    assert roles[-1] == "firewall" and set(roles) == {
        service["name"] for service in sample.services(HOST) if service.get("plain")
    }


def test_certificates_live_as_long_as_the_inventory_says() -> None:
    rendered = files(rendering.load("all_in_one"), HOST)
    for path in ("/etc/haproxy/front.pem", "/etc/pki/libvirt/servercert.pem", "/etc/pki/qemu/client-cert.pem"):
        certificate = x509.load_pem_x509_certificate(rendered[path].encode())
        # A day earlier, for slow clocks.
        assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days == 366
