# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the operator's own certificate for the APIs and consoles. For action plugins: it needs cryptography."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from ansible.module_utils.kilonova.preflight.messages import HIDDEN, message
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

CERTIFICATE, KEY = "haproxy_certificate", "haproxy_certificate_key"
CHAIN, AUTHORITY = "haproxy_certificate_chain", "haproxy_certificate_authority"
NAMES = (CERTIFICATE, KEY, CHAIN, AUTHORITY)
PEM = "-----BEGIN "
FORM = "Write the absolute path of a file in PEM form on the computer that runs Ansible, or its text"


def read(given: Mapping[str, str], load: Callable[[str], str]) -> tuple[dict[str, str], list[str]]:
    """Return the texts of what is given as text or path, and problems. ``load`` reads a file, and raises OSError."""
    texts, problems = {}, []
    for name, value in given.items():
        if not value or PEM in value:
            texts[name] = value
            continue
        try:
            texts[name] = load(value) if value.startswith("/") else ""
            why = "" if PEM in texts[name] else "this is neither an absolute path nor a text in PEM form"
        except OSError as error:
            why = f"the file cannot be read on the computer that runs Ansible ({error})"
        if why:
            problems.append(message(name, HIDDEN if name == KEY else value, why, FORM))
    return texts, problems


def shown(certificate: x509.Certificate) -> str:
    """Return how messages name a certificate."""
    return certificate.subject.rfc4514_string() or "without a subject"


def covers(certificate: x509.Certificate, address: str) -> bool:
    """Return whether the names of a certificate include an address, as clients compare them (RFC 9525)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ipaddress.ip_address(address) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        wanted = address.lower().rstrip(".")
        listed = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
        return wanted in listed or f"*.{wanted.partition('.')[2]}" in listed


def check_dates(name: str, certificates: Sequence[x509.Certificate], now: datetime) -> Iterator[str]:
    """Report certificates that are not valid now."""
    for one in certificates:
        begin, end = one.not_valid_before_utc, one.not_valid_after_utc
        if not begin <= now <= end:
            why = f"it is valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d}, and today is {now:%Y-%m-%d}"
            yield message(name, shown(one), why, "Give one that is valid")


def check_key(certificate: x509.Certificate, text: str) -> Iterator[str]:
    """Report a key that is missing, cannot be read, or belongs to another certificate."""
    if not text:
        why = f"{CERTIFICATE} is given without its private key"
        yield message(KEY, "", why, FORM)
        return
    try:
        key = load_pem_private_key(text.encode(), None)
    except TypeError:
        yield message(KEY, HIDDEN, "the key has a passphrase, which HAProxy cannot ask for", "Give it without one")
    except ValueError:
        yield message(KEY, HIDDEN, "this is no private key in PEM form", FORM)
    else:
        if key.public_key() != certificate.public_key():
            why = f"it does not belong to {CERTIFICATE} ({shown(certificate)})"
            yield message(KEY, HIDDEN, why, "Give the key that the certificate was requested with")


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Return whether an authority has signed a certificate."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def trusted() -> list[x509.Certificate]:
    """Return the authorities that this computer trusts."""
    encoded = ssl.create_default_context().get_ca_certs(binary_form=True)
    return [x509.load_der_x509_certificate(one) for one in encoded]


def check_chain(
    path: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate], given: bool
) -> Iterator[str]:
    """Report a gap between the certificate, the intermediate ones and the authority.

    ``given``: whether the authorities are those of the inventory; otherwise they are those that this computer trusts.
    """
    for one, issuer in zip(path, path[1:], strict=False):
        if not issued_by(one, issuer):
            why = f"{shown(one)} is not signed by {shown(issuer)}, which follows it"
            order = "Write the intermediate certificates in order, the one that signed the certificate first"
            yield message(CHAIN, shown(issuer), why, order)
            return
    last = path[-1]
    if not authorities or any(last == one or issued_by(last, one) for one in authorities):
        return
    why = f"{shown(last)} is signed by {last.issuer.rfc4514_string()}"
    if given:
        instead = f"Give the certificate of that authority, or what lies between in {CHAIN}"
        yield message(AUTHORITY, shown(authorities[0]), f"{why}, which is another authority", instead)
    else:
        instead = f"Give what lies between in {CHAIN}; where the authority is your own, give it in {AUTHORITY}"
        yield message(CHAIN, "", f"{why}, which this computer does not trust", instead)


def check_certificate(texts: Mapping[str, str], address: str, now: datetime) -> list[str]:
    """Check the operator's certificate: form, names, dates, key, chain."""
    if not texts[CERTIFICATE]:
        why = f"it has no effect without {CERTIFICATE}"
        return [message(name, HIDDEN, why, f"Set {CERTIFICATE}, or remove the line") for name in NAMES if texts[name]]
    loaded, problems = {}, []
    for name in (CERTIFICATE, CHAIN, AUTHORITY):
        try:
            loaded[name] = x509.load_pem_x509_certificates(texts[name].encode()) if texts[name] else []
        except ValueError:
            problems.append(message(name, "...", "it cannot be read as certificates", FORM))
    if problems:
        return problems
    # Some authorities deliver the chain in the same file.
    leaf, *rest = loaded[CERTIFICATE]
    if not covers(leaf, address):
        why = f"its names do not include {address} (cloud_api_address), so that no client would accept it"
        problems.append(message(CERTIFICATE, shown(leaf), why, "Give one with that name in subjectAltName"))
    for name, certificates in loaded.items():
        problems += check_dates(name, certificates, now)
    problems += check_key(leaf, texts[KEY])
    given = bool(loaded[AUTHORITY])
    problems += check_chain([leaf, *rest, *loaded[CHAIN]], loaded[AUTHORITY] or trusted(), given)
    return problems
