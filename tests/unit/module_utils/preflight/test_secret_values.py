# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Messages about secrets."""

from __future__ import annotations

import pytest
from ansible.module_utils.kilonova.preflight import secret_values

from tests.unit.module_utils.preflight.sample import host


@pytest.mark.parametrize(
    ("value", "why", "instead"),
    [
        ("", "an empty secret protects nothing", "Write a long random text, or remove the line to have one generated"),
        (
            "two\nlines",
            "it contains a line break, which no configuration file can hold",
            "Write it with printable characters only",
        ),
        (
            "tab\there",
            "it contains the unprintable character U+0009, which no configuration file can hold",
            "Write it with printable characters only",
        ),
    ],
)
def test_bad_secret(value: str, why: str, instead: str) -> None:
    assert secret_values.check_secret("nova_password", value) == [f"nova_password = (hidden): {why}. {instead}."]


def test_good_secret() -> None:
    good = "@:/%$#'\"\\ ü long"
    assert secret_values.check_secret("nova_password", good) == []
    assert secret_values.note_secret("nova_password", good) == []


@pytest.mark.parametrize(
    ("value", "kind"), [(12345678, "a whole number"), (True, "true or false"), (1234.5678, "a number")]
)
def test_secret_that_yaml_reads_as_something_else(value: object, kind: str) -> None:
    assert secret_values.check_secret("nova_password", value) == [
        f"nova_password = (hidden): YAML reads it as {kind}, and a secret is text. Quote it, as in name: '0123'."
    ]


@pytest.mark.parametrize(("name", "least"), [("nova_password", 8), ("secrets_pki_seed", 32), ("nova_compute_seed", 32)])
def test_short_secret(name: str, least: int) -> None:
    assert secret_values.check_secret(name, "x" * least) == []
    assert secret_values.check_secret(name, "x" * (least - 1)) == [
        f"{name} = (hidden): it has fewer than {least} characters and is easily guessed. Write a longer random text, "
        "or remove the line to have one generated."
    ]


def test_trusted_seeds() -> None:
    assert secret_values.check_trusted_seeds(["x" * 32, "y" * 40]) == []
    short, number = secret_values.check_trusted_seeds(["x" * 32, "y" * 31, 12])
    assert short.startswith("secrets_pki_trusted_seeds[1] = (hidden): it has fewer than 32 characters")
    assert short.endswith("Write a longer random text, or leave it out.")
    assert number.startswith("secrets_pki_trusted_seeds[2] = (hidden): YAML reads it as a whole number")
    assert secret_values.check_trusted_seeds(None) == secret_values.check_trusted_seeds("x") == []


def test_passwords_shorter_than_keystone_accepts() -> None:
    users = [{"name": "robot", "password": "x" * 11}, {"name": "other", "password": "x" * 12}]
    values = {"keystone_password_length": 12, "nova_password": "x" * 11, "catalog_users": users}
    assert secret_values.check_password_length(values, ["nova_password"]) == [
        f"{name} = (hidden): it has fewer than 12 characters, which keystone_password_length requires. Write a longer "
        "random text."
        for name in ("nova_password", "catalog_users, password of robot")
    ]
    # The least length of a secret is reported elsewhere.
    assert secret_values.check_password_length({"nova_password": "short"}, ["nova_password"]) == []
    assert secret_values.check_password_length({"catalog_users": [{"name": "robot", "password": "a"}]}, []) != []


def test_secret_that_is_rather_short_is_a_note() -> None:
    assert secret_values.note_secret("nova_password", "x" * 11) == [
        "nova_password = (hidden): it has fewer than 12 characters. A longer one is harder to guess."
    ]
    assert secret_values.note_secret("nova_password", "x" * 12) == []


def test_console_password_may_be_empty() -> None:
    assert secret_values.check_secret("guest_image_console_password", "") == []
    assert secret_values.check_secret("guest_image_console_password", "short") != []


PATH = "/inventory/secrets.yml"
USED = {"secrets": ["nova_password", "rabbitmq_password"]}


@pytest.mark.parametrize("record", [USED, {}])
def test_secrets_of_a_deployed_host_are_not_replaced(record: dict[str, object]) -> None:
    deployed = host(deployed=True, record=record)
    (found,) = secret_values.check_missing(deployed, ["nova_password"], PATH, False)
    assert found.startswith("This host is deployed, and secrets that it uses are not given (nova_password): ")
    assert f"Restore {PATH} from a copy" in found and "-e secrets_regenerate=true" in found
    assert secret_values.check_missing(deployed, ["nova_password"], PATH, True) == []
    assert secret_values.check_missing(deployed, [], PATH, False) == []


def test_secrets_that_no_host_uses_are_generated() -> None:
    assert secret_values.check_missing(host(), ["nova_password"], PATH, False) == []
    deployed = host(deployed=True, record=USED)
    assert secret_values.check_missing(deployed, ["heat_password"], PATH, False) == []
    # Only the used one is named.
    (found,) = secret_values.check_missing(deployed, ["heat_password", "nova_password"], PATH, False)
    assert "(nova_password)" in found and "heat" not in found


def test_no_secrets_are_generated_without_the_controller() -> None:
    (found,) = secret_values.check_limited(["nova_password"], ["ctl1"], ["cmp1"], PATH)
    assert found.startswith("Secrets are not given (nova_password), and this run leaves out ctl1,")
    assert secret_values.check_limited(["nova_password"], ["ctl1"], ["cmp1", "ctl1"], PATH) == []
    assert secret_values.check_limited([], ["ctl1"], ["cmp1"], PATH) == []
