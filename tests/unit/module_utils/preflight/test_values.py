# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Messages about values of variables."""

from __future__ import annotations

import pytest
from ansible.module_utils.kilonova.preflight import values

from tests.unit.module_utils.preflight.sample import KNOWN


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("fixed_range", ["10.0.0.0/8"], "fixed_range = ['10.0.0.0/8']: this must be text and is a list. Write a text."),
        (
            "network_size",
            "many",
            "network_size = 'many': this must be a whole number and is text. Write a number such as 1.",
        ),
        (
            "cloud_debug",
            "perhaps",
            "cloud_debug = 'perhaps': this must be true or false and is text. Write true or false.",
        ),
        (
            "bridge_dns",
            "10.0.0.53",
            "bridge_dns = '10.0.0.53': this must be a list and is text. Write a list such as [a, b].",
        ),
        (
            "nova_conf_overrides",
            "debug=true",
            "nova_conf_overrides = 'debug=true': this must be a mapping and is text. Write a mapping such as {a: b}.",
        ),
        (
            "bridge_method",
            "magic",
            "bridge_method = 'magic': this is not one of the values that it can have. Write one of: auto, dhcp.",
        ),
        (
            "network_size",
            None,
            "network_size = None: this must be a whole number and is empty. Write a number such as 1, or remove the "
            "line to have the default.",
        ),
        ("nova_password", ["geheim"], "nova_password = (hidden): this must be text and is a list. Write a text."),
    ],
)
def test_wrong_type(name: str, value: object, expected: str) -> None:
    assert values.check_types({name: value}, KNOWN) == [expected]


@pytest.mark.parametrize("value", ["", "  "])
def test_empty_text(value: str) -> None:
    assert values.check_types({"cloud_region": value}, KNOWN) == [
        f"cloud_region = {value!r}: this must not be empty. Write a text, or remove the line to have the default."
    ]


def test_text_that_may_be_empty() -> None:
    assert values.check_types({"fixed_gateway": "", "first_cloud_server_name": ""}, KNOWN) == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"DEFAULT": None}, "section 'DEFAULT' is a null, not a mapping of options"),
        ({"debug": True}, "section 'debug' is a boolean, not a mapping of options"),
        ({"DEFAULT": {"servers": ["a", None]}}, "option 'servers' in section 'DEFAULT': a NoneType cannot be"),
    ],
)
def test_wrong_overrides(value: object, reason: str) -> None:
    (found,) = values.check_override_forms({"nova_conf_overrides": value})
    assert found.startswith("nova_conf_overrides: ") and reason in found


def test_null_for_libvirt() -> None:
    (found,) = values.check_override_forms({"libvirt_qemu_conf": {"user": "root", "group": None}})
    assert found == ("libvirt_qemu_conf.group = None: libvirt has no empty value. Write a value, or remove the line.")


def test_null_removes_an_option_with_a_note() -> None:
    overrides = {"nova_conf_overrides": {"DEFAULT": {"debug": None, "use_stderr": ""}}}
    assert values.check_override_forms(overrides) == []
    (found,) = values.note_removed_options(overrides)
    assert found.startswith("nova_conf_overrides: [DEFAULT] debug is empty (null), which removes the option")


def test_right_types() -> None:
    right = {
        "fixed_range": "192.168.1.0/24",
        "network_size": "254",
        "cloud_debug": "yes",
        "bridge_dns": ["10.0.0.53"],
        "bridge_method": "dhcp",
        "nova_conf_overrides": {"DEFAULT": {"debug": True}},
        "nova_cpu_ratio": 2,
        "unknown": object(),
    }
    assert values.check_types(right, KNOWN) == []
