# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Hide secrets in texts that are shown: diffs, messages and results."""

from __future__ import annotations

import re
from urllib.parse import quote, quote_plus

MASK = "********"
# An old secret is in no list: its option's name or its place in a URL gives it away.
_SECRET_OPTION = re.compile(
    r"""^(\s*["']?[\w.-]*(?:password|passwd|secret|passphrase|token|_key)["']?[ \t]*[=:][ \t]*)(?=\S).*$""",
    re.IGNORECASE | re.MULTILINE,
)
_PRIVATE_KEY = re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----\n).*?(\n-----END )", re.DOTALL)
_URL_PASSWORD = re.compile(r"(://[^\s:/@]*:)[^\s]*(@[\w.\[\]:-]+)")


def mask_url_passwords(text: str) -> str:
    """Mask the password of every C(scheme://user:password@host)."""
    return _URL_PASSWORD.sub(rf"\1{MASK}\2", text)


def mask(text: str, secrets: list[str]) -> str:
    """Mask the given values, longest first, and values that look secret by their option, URL or format."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _PRIVATE_KEY.sub(rf"\1{MASK}\2", text)
    return _SECRET_OPTION.sub(rf"\1{MASK}", mask_url_passwords(text))


def mask_predecessors(text: str, new: str, secrets: list[str]) -> str:
    """Mask old secrets: what stands in the old text where a line of the new text has a secret."""
    places: set[tuple[str, str]] = set()
    for line in new.splitlines():
        for secret in (secret for secret in secrets if secret in line):
            start, end = line.split(secret, 1)[0], line.rsplit(secret, 1)[1]
            if start.strip():
                places.add((start, end))
    lines = text.splitlines(keepends=True)
    for index, line in enumerate(lines):
        bare = line.rstrip("\n")
        for start, end in places:
            if bare.startswith(start) and bare.endswith(end) and len(bare) > len(start) + len(end):
                lines[index] = line.replace(bare, f"{start}{MASK}{end}")
    return "".join(lines)


def secret_forms(secret: str) -> list[str]:
    """Return a secret as files write it: plain, quoted for a URL, escaped for oslo.config, INI, YAML, JSON or SQL."""
    if not secret:
        return []
    plain = [secret, quote(secret, safe=""), quote(secret), quote_plus(secret)]
    escaped = [
        secret.replace("\\", "\\\\"),
        secret.replace("\\", "\\\\").replace('"', '\\"'),
        secret.replace("\\", "\\\\").replace("'", "\\'"),
        secret.replace("'", "''"),
        secret.replace("'", "'\\''"),
    ]
    forms = [*plain, *escaped]
    for special, written in (("$", "$$"), ("$", "\\$"), ("%", "%%")):
        forms += [form.replace(special, written) for form in forms]
    return list(dict.fromkeys(forms))
