# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters for certificates and ssh keys that are derived from one secret.

A key depends only on the secret and a purpose, a certificate only on keys, arguments and a period of time: a second run
renders the same bytes, and keys of authorities are never written. A new secret replaces all keys. While hosts change to
one, they trust the authorities of several secrets.

Time is divided into periods of two thirds of a certificate's life. A certificate begins with its period, so that the
first run of the next one replaces it while it has a third of its life left.

Keys are Ed25519 (RFC 8032), or P-256 for authorities whose certificates browsers read, derived with HKDF-SHA256
(RFC 5869). Signatures with P-256 are deterministic (RFC 6979). Certificates are X.509 (RFC 5280). Host certificates
follow PROTOCOL.certkeys of OpenSSH.
"""

from __future__ import annotations

import base64
import ipaddress
import struct
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta

from ansible.errors import AnsibleFilterError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from jinja2 import pass_context
from jinja2.runtime import Context

# Part of every derivation: changing it changes all keys.
VERSION = "kilonova pki 1"
# When the first period began, and the life of authorities, which end with their secret.
BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
END = datetime(2050, 1, 1, tzinfo=UTC)
DAYS = 365
# So that a host whose clock is slow accepts a new certificate.
EARLY = timedelta(days=1)
USAGES = {"server": x509.ExtendedKeyUsageOID.SERVER_AUTH, "client": x509.ExtendedKeyUsageOID.CLIENT_AUTH}
SSH_CERTIFICATE = b"ssh-ed25519-cert-v01@openssh.com"
SSH_HOST = 2  # SSH_CERT_TYPE_HOST of PROTOCOL.certkeys
SSH_FOREVER = 2**64 - 1
# Authorities of certificates for browsers, which refuse Ed25519. All others have Ed25519 keys.
P256_AUTHORITIES = frozenset({"front"})
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey


def derive(secret: str, purpose: str, length: int = 32) -> bytes:
    """Derive bytes from the secret and a purpose."""
    if not secret:
        raise AnsibleFilterError("The secret that keys are derived from is empty; run the role secrets first.")
    return HKDF(hashes.SHA256(), length, salt=None, info=f"{VERSION}/{purpose}".encode()).derive(secret.encode())


def key_for(secret: str, authority: str, purpose: str) -> PrivateKey:
    """Return the key for a purpose, of the type that the authority has."""
    if authority not in P256_AUTHORITIES:
        return Ed25519PrivateKey.from_private_bytes(derive(secret, purpose))
    # 128 more bits than the order has: the remainder is then as good as uniform (FIPS 186-5, A.2.1).
    number = int.from_bytes(derive(secret, purpose, 48))
    return ec.derive_private_key(number % (P256_ORDER - 1) + 1, ec.SECP256R1())


def private_key(secret: str, authority: str, holder: str) -> PrivateKey:
    """Return the key of a holder."""
    return key_for(secret, authority, f"key/{authority}/{holder}")


def authority_key(secret: str, authority: str) -> PrivateKey:
    """Return the key of an authority."""
    return key_for(secret, authority, f"authority/{authority}")


def signed(builder: x509.CertificateBuilder, key: PrivateKey) -> str:
    """Sign a certificate, with the same bytes each time, and return it in PEM form."""
    if isinstance(key, Ed25519PrivateKey):
        certificate = builder.sign(key, None)
    else:
        certificate = builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def serial_number(secret: str, purpose: str) -> int:
    """Return 159 bits: RFC 5280 requires a positive number of at most 20 octets."""
    return int.from_bytes(derive(secret, f"serial/{purpose}", 20)) >> 1


def name_of(authority: str, holder: str = "") -> x509.Name:
    """Return the distinguished name of a holder or an authority."""
    attributes = [
        x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Kilonova"),
        x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, authority),
        # At most 64 characters. Clients check subjectAltName.
        x509.NameAttribute(x509.NameOID.COMMON_NAME, (holder or f"{authority} authority")[:64]),
    ]
    return x509.Name(attributes)


def pem(key: PrivateKey) -> str:
    """Return a key in PEM form."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def usage(*, signs: bool) -> x509.KeyUsage:
    """Return the key usage of an authority (signs) or a holder."""
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def pki_key(secret: str, authority: str, holder: str) -> str:
    """Return the private key of a holder in PEM form."""
    return pem(private_key(secret, authority, holder))


def pki_authority(secrets: str | Sequence[str], authority: str) -> str:
    """Return the certificate of an authority in PEM form; of several secrets, one for each."""
    given = [secrets] if isinstance(secrets, str) else secrets
    return "".join(authority_certificate(secret, authority) for secret in given)


def authority_certificate(secret: str, authority: str) -> str:
    """Return the certificate of the authority of one secret in PEM form."""
    key = authority_key(secret, authority)
    public = key.public_key()
    builder = (
        x509.CertificateBuilder(name_of(authority), name_of(authority), public)
        .serial_number(serial_number(secret, authority))
        .not_valid_before(BEGIN)
        .not_valid_after(END)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    return signed(builder, key)


def alternative(name: str) -> x509.GeneralName:
    """Return an entry of subjectAltName."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def period_of(now: datetime, days: float) -> tuple[int, datetime, datetime]:
    """Return the number of the period that holds a time, and begin and end of its certificates."""
    life = timedelta(days=days)
    number = (now - BEGIN) // (life * 2 / 3)
    begin = BEGIN + number * (life * 2 / 3)
    return number, begin - EARLY, begin + life


def pki_certificate(
    secret: str,
    authority: str,
    holder: str,
    addresses: Iterable[str] = (),
    usages: Iterable[str] = ("server", "client"),
    *,
    days: float = DAYS,
    now: datetime | None = None,
) -> str:
    """Return the certificate of a holder in PEM form, with a life of some days."""
    number, begin, end = period_of(now or datetime.now(UTC), days)
    signer = authority_key(secret, authority)
    public = private_key(secret, authority, holder).public_key()
    names = list(dict.fromkeys(addresses))
    builder = (
        x509.CertificateBuilder(name_of(authority), name_of(authority, holder), public)
        # Two certificates of a host never have the same number.
        .serial_number(serial_number(secret, "/".join([authority, holder, *names, *usages, f"{days} {number}"])))
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([USAGES[usage] for usage in usages]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(map(alternative, names)), critical=False)
    return signed(builder, signer)


def ssh_public_key(secret: str, authority: str, holder: str, comment: str = "") -> str:
    """Return the public key of a holder as a line of authorized_keys."""
    public = private_key(secret, authority, holder).public_key()
    text = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    return f"{text} {comment}".rstrip()


def ssh_string(content: bytes) -> bytes:
    """Return a string as RFC 4251 section 5 encodes it."""
    return struct.pack(">I", len(content)) + content


def ssh_host_certificate(secret: str, authority: str, holder: str, host_key: str, names: Iterable[str]) -> str:
    """Sign the host key (the content of ssh_host_ed25519_key.pub) of a host with these names."""
    kind, _, rest = host_key.strip().partition(" ")
    try:
        blob = base64.b64decode(rest.split(" ")[0], validate=True)
    except ValueError as error:
        raise AnsibleFilterError(f"The host key '{host_key}' is not base64: {error}") from error
    if kind != "ssh-ed25519" or len(blob) != 4 + len(kind) + 4 + 32:
        raise AnsibleFilterError(f"The host key '{host_key}' is not an ssh-ed25519 key.")
    signer = Ed25519PrivateKey.from_private_bytes(derive(secret, f"key/{authority}/{holder}"))
    signer_blob = base64.b64decode(ssh_public_key(secret, authority, holder).split(" ")[1])
    principals = list(dict.fromkeys(names))
    body = b"".join(
        [
            ssh_string(SSH_CERTIFICATE),
            ssh_string(derive(secret, f"nonce/{authority}/{host_key}/{principals}")),
            ssh_string(blob[-32:]),
            struct.pack(">QI", 0, SSH_HOST),
            ssh_string(principals[0].encode() if principals else b""),
            ssh_string(b"".join(ssh_string(name.encode()) for name in principals)),
            struct.pack(">QQ", 0, SSH_FOREVER),
            ssh_string(b""),  # critical options
            ssh_string(b""),  # extensions
            ssh_string(b""),  # reserved
            ssh_string(signer_blob),
        ]
    )
    signature = ssh_string(b"ssh-ed25519") + ssh_string(signer.sign(body))
    return f"{SSH_CERTIFICATE.decode()} {base64.b64encode(body + ssh_string(signature)).decode()}"


@pass_context
def certificate_of_inventory(
    context: Context,
    secret: str,
    authority: str,
    holder: str,
    addresses: Iterable[str] = (),
    usages: Iterable[str] = ("server", "client"),
) -> str:
    """Return a certificate with the life that the variable secrets_certificate_days says."""
    days = float(context.resolve("secrets_certificate_days"))
    return pki_certificate(secret, authority, holder, addresses, usages, days=days)


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., str]]:
        return {
            "pki_authority": pki_authority,
            "pki_certificate": certificate_of_inventory,
            "pki_key": pki_key,
            "ssh_host_certificate": ssh_host_certificate,
            "ssh_public_key": ssh_public_key,
        }
