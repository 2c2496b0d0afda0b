# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Serial consoles go over TLS from controllers to computes, and each end knows the other."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.render import rendering

CLIENT = "/etc/haproxy/serial-client.pem"
SERVER = "/etc/kilonova/serial/server.pem"
CONFIGURATION = "/etc/kilonova/serial/haproxy.cfg"


def files(host: str) -> dict[str, rendering.File]:
    return {file.dest: file for file in rendering.load("multihost").files(host)}


def section(text: str | None) -> str:
    (found,) = re.findall(r"^listen serial-consoles\n((?:    .*\n)*)", text or "", re.MULTILINE)
    return str(found)


@pytest.mark.parametrize(
    ("host", "path", "authority", "usage", "mode"),
    [
        ("ctl1", CLIENT, "/etc/haproxy/serial-ca.pem", ExtendedKeyUsageOID.CLIENT_AUTH, "0600"),
        ("cmp1", SERVER, "/etc/kilonova/serial/ca.pem", ExtendedKeyUsageOID.SERVER_AUTH, "0640"),
    ],
)
def test_each_end_has_a_certificate_for_its_side_only(
    host: str, path: str, authority: str, usage: Any, mode: str
) -> None:
    found = files(host)
    text = (found[path].text or "").encode()
    certificate = x509.load_pem_x509_certificate(text)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate((found[authority].text or "").encode()))
    assert load_pem_private_key(text, None).public_key() == certificate.public_key()
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [usage]
    assert found[path].mode == mode
    other = {CLIENT, SERVER} - {path}
    assert not other & found.keys()


def test_no_other_authority_opens_consoles() -> None:
    found = files("cmp1")
    authority = found["/etc/kilonova/serial/ca.pem"].text
    assert [path for path, file in found.items() if file.text == authority] == ["/etc/kilonova/serial/ca.pem"]


def test_the_name_that_is_asked_for_has_the_port_and_is_checked() -> None:
    controller = section(files("ctl1")["/etc/haproxy/haproxy.cfg"].text)
    assert "bind 127.0.0.1:6085\n" in controller
    assert "server compute 0.0.0.0:6084 ssl ssl-min-ver TLSv1.3 no-ssl-reuse verify required " in controller
    assert controller.endswith(" sni dst_port,concat(.,sess.compute)\n")
    compute = section(files("cmp1")[CONFIGURATION].text)
    assert "bind 192.0.2.21:6084 ssl " in compute and " ssl-min-ver TLSv1.3 verify required " in compute
    assert "reject unless { ssl_fc_sni,field(1,.) -m int 10000:10999 }\n" in compute
    certificate = x509.load_pem_x509_certificate((files("cmp1")[SERVER].text or "").encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [one.value for one in names] == [ipaddress.ip_address("192.0.2.21"), "*.192.0.2.21"]


def test_what_nova_connects_to_is_led_into_haproxy() -> None:
    text = files("ctl1")["/etc/kilonova/serial.nft"].text or ""
    assert "meta skuid nova tcp dport 10000-10999 redirect to :6085\n" in text
    assert "/etc/kilonova/serial.nft" not in files("cmp1")


def test_without_serial_consoles_nothing_of_it_runs() -> None:
    sample = rendering.load("all_in_one").changed(nova_serial_console=False)
    services = {service["name"]: service for service in sample.services("cloud1")}
    texts = {
        file.dest: file.text or "" for name in ("haproxy", "nova") for file in sample.render("cloud1", services[name])
    }
    assert "serial-consoles" not in texts["/etc/haproxy/haproxy.cfg"]
    assert "redirect" not in texts["/etc/kilonova/serial.nft"]
    units = {unit["name"]: unit for service in services.values() for unit in service.get("units", [])}
    for name in ("kilonova-serial", "kilonova-serial-redirect"):
        assert (units[f"{name}.service"]["state"], units[f"{name}.service"]["enabled"]) == ("stopped", False)
    assert services["nova_compute"]["certificates"] == []
    assert services["nova"]["checks"][0]["args"]["state"] == "absent"
