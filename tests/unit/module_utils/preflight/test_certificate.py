# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Messages about the operator's own certificate."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ansible.module_utils.kilonova.preflight import certificate
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NOW = datetime(2026, 11, 29, tzinfo=UTC)
ADDRESS = "192.0.2.10"
Key = ec.EllipticCurvePrivateKey


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def issue(
    holder: str, key: Key, signer: str, signer_key: Key, *, addresses: tuple[str, ...] = (), days: int = 90
) -> str:
    """Return a certificate in PEM form; without addresses that of an authority."""
    builder = (
        x509.CertificateBuilder(name(signer), name(holder), key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=100))
        .not_valid_after(NOW + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=not addresses, path_length=None), critical=True)
    )
    if addresses:
        names = [
            x509.IPAddress(ipaddress.ip_address(one)) if one[0].isdigit() else x509.DNSName(one) for one in addresses
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def pem(key: Key, passphrase: str = "") -> str:
    locked = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked).decode()


ROOT, MIDDLE, LEAF = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
GOOD = {
    "haproxy_certificate": issue("api", LEAF, "middle", MIDDLE, addresses=(ADDRESS, "api.example.org")),
    "haproxy_certificate_key": pem(LEAF),
    "haproxy_certificate_chain": issue("middle", MIDDLE, "root", ROOT),
    "haproxy_certificate_authority": issue("root", ROOT, "root", ROOT),
}


def problems(address: str = ADDRESS, now: datetime = NOW, **changes: str) -> list[str]:
    given = {f"haproxy_certificate{key and '_'}{key}": value for key, value in changes.items()}
    return certificate.check_certificate({**GOOD, **given}, address, now)


def test_a_good_one() -> None:
    assert problems() == []
    assert problems("api.example.org") == []


def test_none() -> None:
    assert certificate.check_certificate(dict.fromkeys(certificate.NAMES, ""), ADDRESS, NOW) == []


def test_parts_without_the_certificate() -> None:
    found = certificate.check_certificate({**GOOD, "haproxy_certificate": ""}, ADDRESS, NOW)
    assert [text.split(" = ")[0] for text in found] == [*certificate.NAMES[1:]]
    assert "it has no effect without haproxy_certificate. Set haproxy_certificate" in found[0]


@pytest.mark.parametrize("address", ["192.0.2.11", "other.example.org", "deep.api.example.org"])
def test_names(address: str) -> None:
    (found,) = problems(address)
    assert found == (
        f"haproxy_certificate = 'CN=api': its names do not include {address} (cloud_api_address), so that no client "
        "would accept it. Give one with that name in subjectAltName."
    )


def test_a_name_with_a_star() -> None:
    given = {**GOOD, "haproxy_certificate": issue("api", LEAF, "middle", MIDDLE, addresses=("*.example.org",))}
    assert certificate.check_certificate(given, "api.example.org", NOW) == []
    assert certificate.check_certificate(given, "deep.api.example.org", NOW) != []


def test_dates() -> None:
    found = problems(now=NOW + timedelta(days=91))
    assert len(found) == 3
    assert found[0] == (
        "haproxy_certificate = 'CN=api': it is valid from 2026-08-21 to 2027-02-27, and today is 2027-02-28. Give one "
        "that is valid."
    )
    assert problems(now=NOW - timedelta(days=101))[0].startswith("haproxy_certificate = 'CN=api': it is valid from")


def test_the_key_of_another_certificate() -> None:
    (found,) = certificate.check_certificate({**GOOD, "haproxy_certificate_key": pem(MIDDLE)}, ADDRESS, NOW)
    assert found.startswith(
        "haproxy_certificate_key = (hidden): it does not belong to haproxy_certificate (CN=api). Give the key"
    )


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("", "haproxy_certificate is given without its private key"),
        (pem(LEAF, "locked"), "the key has a passphrase, which HAProxy cannot ask for"),
        ("-----BEGIN PRIVATE KEY-----\nQ0RFRkdI\n-----END PRIVATE KEY-----\n", "this is no private key in PEM form"),
    ],
)
def test_a_key_that_cannot_be_used(key: str, why: str) -> None:
    (found,) = certificate.check_certificate({**GOOD, "haproxy_certificate_key": key}, ADDRESS, NOW)
    assert found.startswith("haproxy_certificate_key") and why in found
    assert key == "" or key.splitlines()[1] not in found


def test_a_chain_with_a_gap() -> None:
    (found,) = certificate.check_certificate({**GOOD, "haproxy_certificate_chain": ""}, ADDRESS, NOW)
    assert found.startswith(
        "haproxy_certificate_authority = 'CN=root': CN=api is signed by CN=middle, which is another"
    )
    wrong = issue("middle", LEAF, "root", ROOT)
    (found,) = certificate.check_certificate({**GOOD, "haproxy_certificate_chain": wrong}, ADDRESS, NOW)
    assert found.startswith("haproxy_certificate_chain = 'CN=middle': CN=api is not signed by CN=middle, which follows")


def test_an_authority_that_nobody_trusts(monkeypatch: pytest.MonkeyPatch) -> None:
    own = x509.load_pem_x509_certificate(issue("public", ROOT, "public", ROOT).encode())
    monkeypatch.setattr(certificate, "trusted", lambda: [own])
    (found,) = certificate.check_certificate({**GOOD, "haproxy_certificate_authority": ""}, ADDRESS, NOW)
    assert found.startswith("haproxy_certificate_chain = '': CN=middle is signed by CN=root, which this computer does")
    root = x509.load_pem_x509_certificate(GOOD["haproxy_certificate_authority"].encode())
    monkeypatch.setattr(certificate, "trusted", lambda: [own, root])
    assert certificate.check_certificate({**GOOD, "haproxy_certificate_authority": ""}, ADDRESS, NOW) == []


def test_the_chain_in_the_file_of_the_certificate() -> None:
    joined = GOOD["haproxy_certificate"] + GOOD["haproxy_certificate_chain"]
    given = {**GOOD, "haproxy_certificate": joined, "haproxy_certificate_chain": ""}
    assert certificate.check_certificate(given, ADDRESS, NOW) == []


def test_something_else_than_certificates() -> None:
    text = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
    (found,) = certificate.check_certificate({**GOOD, "haproxy_certificate_chain": text}, ADDRESS, NOW)
    assert found.startswith("haproxy_certificate_chain = '...': it cannot be read as certificates")


def test_texts_and_files(tmp_path: Path) -> None:
    path = tmp_path / "api.pem"
    path.write_text(GOOD["haproxy_certificate"])

    def load(name: str) -> str:
        return Path(name).read_text()

    given = {**GOOD, "haproxy_certificate": str(path)}
    assert certificate.read(given, load) == (GOOD, [])
    _, found = certificate.read({"haproxy_certificate": f"{path}.old", "haproxy_certificate_key": "files/k.pem"}, load)
    assert found[0].startswith(f"haproxy_certificate = '{path}.old': the file cannot be read on the computer that runs")
    assert found[1].startswith("haproxy_certificate_key = (hidden): this is neither an absolute path nor a text in PEM")
