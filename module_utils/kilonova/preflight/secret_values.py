# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of secrets, whose values are never shown, and of secrets that are missing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ansible.module_utils.kilonova.preflight.messages import HIDDEN, Facts, message
from ansible.module_utils.kilonova.preflight.values import kind_of

SHORTEST = 8
RECOMMENDED = 12
LENGTH = "keystone_password_length"
SEEDS, SHORTEST_SEED = ("secrets_pki_seed", "nova_compute_seed", "ceph_seed", "keystone_fernet_seed"), 32
TRUSTED = "secrets_pki_trusted_seeds"
# Empty turns the login by password off.
MAY_BE_EMPTY = {"guest_image_console_password"}
# In PEM form, which has lines; preflight/certificate.py checks them.
KEYS = {"haproxy_certificate_key"}
GENERATE = "or remove the line to have one generated"
LEAVE_OUT = "or leave it out"


def shortest(name: str) -> int:
    """Return the least number of characters of a secret."""
    return SHORTEST_SEED if name in SEEDS or name.startswith(TRUSTED) else SHORTEST


def check_trusted_seeds(value: object) -> list[str]:
    """Check each seed that is trusted besides secrets_pki_seed."""
    # Anything else than a list, check_types reports.
    seeds = value if isinstance(value, list) else []
    return [text for number, seed in enumerate(seeds) for text in check_secret(f"{TRUSTED}[{number}]", seed, LEAVE_OUT)]


def check_secret(name: str, value: object, otherwise: str = GENERATE) -> list[str]:
    """Check a secret that somebody wrote."""
    if value is None or isinstance(value, (list, dict)) or name in KEYS:
        return []  # check_types reports it.
    if not isinstance(value, str):
        why = f"YAML reads it as {kind_of(value)}, and a secret is text"
        return [message(name, HIDDEN, why, "Quote it, as in name: '0123'")]
    if not value:
        if name in MAY_BE_EMPTY:
            return []
        return [message(name, HIDDEN, "an empty secret protects nothing", f"Write a long random text, {otherwise}")]
    bad = [char for char in value if not char.isprintable()]
    if bad:
        what = "a line break" if set(bad) & {"\n", "\r"} else f"the unprintable character U+{ord(bad[0]):04X}"
        why = f"it contains {what}, which no configuration file can hold"
        return [message(name, HIDDEN, why, "Write it with printable characters only")]
    if len(value) < shortest(name):
        why = f"it has fewer than {shortest(name)} characters and is easily guessed"
        return [message(name, HIDDEN, why, f"Write a longer random text, {otherwise}")]
    return []


def check_password_length(values: Mapping[str, object], secrets: Collection[str]) -> list[str]:
    """Report passwords that Keystone would refuse because of keystone_password_length."""
    text = str(values.get(LENGTH, ""))
    least = int(text) if text.isdigit() else SHORTEST
    passwords = {name: values.get(name) for name in sorted(secrets) if name.endswith("_password")}
    users = values.get("catalog_users")
    for user in users if isinstance(users, list) else []:
        if isinstance(user, Mapping):
            passwords[f"catalog_users, password of {user.get('name')}"] = user.get("password")
    why = f"it has fewer than {least} characters, which {LENGTH} requires"
    return [
        message(name, HIDDEN, why, "Write a longer random text")
        for name, value in passwords.items()
        # check_secret reports others.
        if isinstance(value, str) and value and len(value) < least and (least > SHORTEST or name not in secrets)
    ]


def note_secret(name: str, value: object) -> list[str]:
    """Note a secret that is allowed and still short."""
    if name not in SEEDS and isinstance(value, str) and SHORTEST <= len(value) < RECOMMENDED:
        return [f"{name} = {HIDDEN}: it has fewer than {RECOMMENDED} characters. A longer one is harder to guess."]
    return []


def check_missing(facts: Facts, missing: Iterable[str], path: str, regenerate: bool) -> list[str]:
    """Refuse to generate secrets that a deployed host already uses: new ones would replace every password and key."""
    if not facts["deployed"] or regenerate:
        return []
    # A host that has no record uses all of them.
    used: Collection[str] | None = facts["record"].get("secrets")
    lost = [name for name in missing if used is None or name in used]
    if not lost:
        return []
    return [
        f"This host is deployed, and secrets that it uses are not given ({', '.join(lost)}): generating new ones would "
        f"replace passwords, keys and certificates of the cloud. Restore {path} from a copy, or set them in the "
        "inventory. Add -e secrets_regenerate=true to have new ones."
    ]


def check_limited(missing: Collection[str], controllers: Iterable[str], hosts: Collection[str], path: str) -> list[str]:
    """Refuse to generate secrets in a run without the controllers, which would not get them."""
    left_out = [name for name in controllers if name not in hosts]
    if not missing or not left_out:
        return []
    return [
        f"Secrets are not given ({', '.join(missing)}), and this run leaves out {', '.join(left_out)}, which would "
        f"keep others. Restore {path} from a copy, or run site.yml without --limit first."
    ]
