# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Certificates and ssh keys that follow from one secret, judged by openssl and ssh-keygen where those have a say."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from plugins.filter import pki

SECRET = "correct horse@:/%$#'\"\\ "


def ssh_keygen(*arguments: str | Path) -> str:
    return subprocess.run(["ssh-keygen", *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def test_the_same_secret_gives_the_same_bytes() -> None:
    assert pki.pki_key(SECRET, "libvirt", "cmp1") == pki.pki_key(SECRET, "libvirt", "cmp1")
    assert pki.pki_authority(SECRET, "libvirt") == pki.pki_authority(SECRET, "libvirt")
    first = pki.pki_certificate(SECRET, "libvirt", "cmp1", ["10.0.0.2"])
    assert first == pki.pki_certificate(SECRET, "libvirt", "cmp1", ["10.0.0.2"])


def test_certificates_for_browsers_have_keys_that_they_accept() -> None:
    authority, certificate = (
        x509.load_pem_x509_certificate(text.encode())
        for text in (pki.pki_authority(SECRET, "front"), pki.pki_certificate(SECRET, "front", "api", ["10.0.0.2"]))
    )
    for one in (authority, certificate):
        key = one.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key.curve.name == "secp256r1"
    certificate.verify_directly_issued_by(authority)
    private = serialization.load_pem_private_key(pki.pki_key(SECRET, "front", "api").encode(), None)
    assert private.public_key() == certificate.public_key()


def test_signatures_with_other_keys_are_the_same_each_time_too() -> None:
    assert pki.pki_authority(SECRET, "front") == pki.pki_authority(SECRET, "front")
    assert pki.pki_certificate(SECRET, "front", "api") == pki.pki_certificate(SECRET, "front", "api")
    assert pki.pki_key(SECRET, "front", "api") != pki.pki_key(SECRET, "front", "other")


@pytest.mark.parametrize(
    "other", [(SECRET + "x", "libvirt", "cmp1"), (SECRET, "console", "cmp1"), (SECRET, "libvirt", "c")]
)
def test_another_secret_authority_or_holder_is_another_key(other: tuple[str, str, str]) -> None:
    assert pki.pki_key(*other) != pki.pki_key(SECRET, "libvirt", "cmp1")


def test_no_secret_no_key() -> None:
    with pytest.raises(AnsibleFilterError, match="secret that keys are derived from is empty"):
        pki.pki_key("", "libvirt", "cmp1")


def test_a_certificate_is_signed_by_its_authority_only() -> None:
    certificate = x509.load_pem_x509_certificate(pki.pki_certificate(SECRET, "libvirt", "cmp1").encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(pki.pki_authority(SECRET, "libvirt").encode()))
    with pytest.raises(ValueError, match="does not match certificate issuer"):
        certificate.verify_directly_issued_by(
            x509.load_pem_x509_certificate(pki.pki_authority(SECRET, "console").encode())
        )


@pytest.mark.parametrize("authority", ["libvirt", "front"])
def test_openssl_accepts_the_chain(authority: str, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(pki.pki_authority(SECRET, authority))
    (tmp_path / "cert.pem").write_text(pki.pki_certificate(SECRET, authority, "cmp1", ["cmp1", "10.0.0.2", "cmp1"]))
    for purpose in ("sslserver", "sslclient"):
        done = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-verify_ip", "10.0.0.2"]
            + ["-CAfile", "ca.pem", "cert.pem"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("authority", ["libvirt", "front"])
def test_both_authorities_of_a_bundle_are_trusted(authority: str, tmp_path: Path) -> None:
    """Their names are the same, their keys are not."""
    old, new, other = SECRET, SECRET + "new", SECRET + "other"
    bundle = pki.pki_authority([old, new], authority)
    assert bundle == pki.pki_authority(old, authority) + pki.pki_authority(new, authority)
    (tmp_path / "ca.pem").write_text(bundle)
    accepted = []
    for secret in (old, new, other):
        (tmp_path / "cert.pem").write_text(pki.pki_certificate(secret, authority, "cmp1", ["10.0.0.2"]))
        done = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-verify_ip", "10.0.0.2", "-CAfile", "ca.pem", "cert.pem"],
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        accepted.append(done.returncode == 0)
    assert accepted == [True, True, False]


def test_names_and_addresses() -> None:
    certificate = x509.load_pem_x509_certificate(
        pki.pki_certificate(SECRET, "libvirt", "cmp1", ["cmp1", "10.0.0.2", "cmp1"]).encode()
    )
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["cmp1", "10.0.0.2"]


def test_a_moved_host_gets_another_serial_number() -> None:
    first, second = (
        x509.load_pem_x509_certificate(pki.pki_certificate(SECRET, "libvirt", "cmp1", [address]).encode())
        for address in ("10.0.0.2", "10.0.0.3")
    )
    assert first.serial_number != second.serial_number


def at(day: float, days: float = 30) -> x509.Certificate:
    """The certificate that a run makes some days after the first period began."""
    now = pki.BEGIN + timedelta(days=day)
    text = pki.pki_certificate(SECRET, "libvirt", "cmp1", days=days, now=now)
    return x509.load_pem_x509_certificate(text.encode())


def test_a_certificate_is_replaced_with_a_third_of_its_life_left() -> None:
    first, last, next_one = at(0), at(19.99), at(20)
    assert first == last != next_one
    assert first.serial_number != next_one.serial_number
    assert first.not_valid_after_utc - next_one.not_valid_before_utc == timedelta(days=11)
    for day in (0, 5.5, 19.99, 20, 1000.3):
        now = pki.BEGIN + timedelta(days=day)
        left = at(day).not_valid_after_utc - now
        assert timedelta(days=10) <= left <= timedelta(days=30)
        assert at(day).not_valid_before_utc <= now - timedelta(days=1)


def test_another_life_is_another_certificate() -> None:
    assert at(0, 30).serial_number != at(0, 60).serial_number


@pytest.mark.parametrize("usages", [["server"], ["client"]])
def test_a_certificate_is_good_for_its_usages_only(usages: list[str], tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(pki.pki_authority(SECRET, "console"))
    (tmp_path / "cert.pem").write_text(pki.pki_certificate(SECRET, "console", "cmp1", usages=usages))
    good = [
        purpose
        for purpose in ("server", "client")
        if subprocess.run(
            ["openssl", "verify", "-purpose", f"ssl{purpose}", "-CAfile", "ca.pem", "cert.pem"],
            cwd=tmp_path,
            capture_output=True,
            check=False,
        ).returncode
        == 0
    ]
    assert good == usages


def test_a_long_host_name_fits() -> None:
    assert pki.pki_certificate(SECRET, "libvirt", "c" * 64 + ".example.org")


def test_ssh_reads_the_private_key(tmp_path: Path) -> None:
    key = tmp_path / "id"
    key.write_text(pki.pki_key(SECRET, "ssh", "nova"))
    key.chmod(0o600)
    try:
        public = ssh_keygen("-y", "-f", key)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this ssh-keygen is older than 9.6, which reads PKCS 8: {error.stderr}")
    assert public.split()[:2] == pki.ssh_public_key(SECRET, "ssh", "nova").split()


def test_ssh_reads_the_host_certificate(tmp_path: Path) -> None:
    ssh_keygen("-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "host")
    public = (tmp_path / "host.pub").read_text()
    certificate = tmp_path / "host-cert.pub"
    certificate.write_text(pki.ssh_host_certificate(SECRET, "ssh", "authority", public, ["cmp1", "10.0.0.2"]))
    shown = ssh_keygen("-L", "-f", certificate)
    (tmp_path / "ca.pub").write_text(pki.ssh_public_key(SECRET, "ssh", "authority"))
    (tmp_path / "host").unlink()
    fingerprint = ssh_keygen("-l", "-f", tmp_path / "ca.pub").split()[1]
    assert "host certificate" in shown
    assert f"Signing CA: ED25519 {fingerprint}" in shown
    assert "Valid: forever" in shown
    assert "cmp1\n" in shown
    assert "10.0.0.2\n" in shown


@pytest.mark.parametrize("line", ["ssh-rsa AAAA", "ssh-ed25519 !", "ssh-ed25519 AAAA", ""])
def test_another_host_key_is_refused(line: str) -> None:
    with pytest.raises(AnsibleFilterError, match="host key"):
        pki.ssh_host_certificate(SECRET, "ssh", "authority", line, ["cmp1"])
