# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
from ansible.module_utils.kilonova.config.ini_files import (
    IniError,
    check_overrides,
    format_value,
    merge_overrides,
    parse,
    section_names,
)

TEMPLATE = """\
# Head
[DEFAULT]
# about debug
debug = false
transport_url = rabbit://a
device = one
device = two

[libvirt]
; about virt_type
virt_type = kvm

[empty]
"""


def test_parse_reads_oslo_dialect() -> None:
    text = '[a]\nx = 1\ny: 2\nurl: a=b\nquoted = " q "\nlong = one\n  two\n# comment\nnone =\n[b]\nx = 3\n[a]\nz = 4\n'
    found = [(a.section, a.option, a.value) for a in parse(text)]
    assert found == [
        ("a", "x", "1"),
        ("a", "y", "2"),
        ("a", "url", "a=b"),
        ("a", "quoted", " q "),
        ("a", "long", "one\ntwo"),
        ("a", "none", ""),
        ("b", "x", "3"),
        ("a", "z", "4"),
    ]
    assert section_names(text) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "nova.conf, line 1: an option before the first [section]: 'x...'"),
        (
            "[a]\nnonsense hunter2\n",
            "nova.conf, line 2: neither a comment, a [section] nor 'option = value': 'nonsense...'",
        ),
        ("[a]\n\n  more\n", "nova.conf, line 3: an indented line that continues no value: 'more'"),
        ("[a]\nx = 1\n# c\n  more\n", "nova.conf, line 4: an indented line"),
        ("[a\n", "nova.conf, line 1: a section header that is not [name]: [a"),
        ("[a]\n= 1\n", "nova.conf, line 2: neither"),
    ],
)
def test_parse_names_the_line_of_what_is_not_ini(text: str, message: str) -> None:
    with pytest.raises(IniError) as caught:
        parse(text, "nova.conf")
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_merge_keeps_comments_and_order() -> None:
    merged = merge_overrides(
        TEMPLATE,
        {
            "DEFAULT": {"debug": True, "my_ip": "10.0.0.1", "device": None, "workers": 2},
            "libvirt": {"virt-type": "qemu"},
            "empty": {"x": [1, 2]},
            "new": {"ratio": 1.5},
            "gone": {"never": None},
        },
    )
    assert merged == (
        "# Head\n[DEFAULT]\n# about debug\ndebug = true\ntransport_url = rabbit://a\nmy_ip = 10.0.0.1\nworkers = 2\n\n"
        "[libvirt]\n; about virt_type\nvirt-type = qemu\n\n[empty]\nx = 1\nx = 2\n\n[new]\nratio = 1.5\n"
    )


def test_merge_replaces_all_lines_of_an_option() -> None:
    text = "[a]\nm = 1\nx = one\n  two\nm = 2\n[b]\n[a]\nm = 3\n"
    assert merge_overrides(text, {"a": {"m": ["p", "q"], "x": "y"}}) == "[a]\nm = p\nm = q\nx = y\n[b]\n[a]\n"


def test_merge_without_overrides_changes_nothing() -> None:
    assert merge_overrides(TEMPLATE, {}) == TEMPLATE


@pytest.mark.parametrize("section", ["DEFAULT", "libvirt", "new"])
@pytest.mark.parametrize(
    "value", ["plain", "  outer spaces ", '"quoted"', "'", '"', "a#b;c", "$my_ip/x", "k: v = w", ""]
)
def test_what_is_merged_is_read_back(section: str, value: str) -> None:
    merged = merge_overrides(TEMPLATE, {section: {"option": value}})
    assert [a.value for a in parse(merged) if (a.section, a.option) == (section, "option")] == [value]
    assert merge_overrides(merged, {section: {"option": value}}) == merged


def test_values_are_written_as_oslo_reads_them() -> None:
    assert format_value(False) == "false"
    assert format_value(4.0) == "4.0"
    assert format_value({"a": 1, "b": True}) == "a:1,b:true"
    assert format_value("one\ntwo\n") == "one\n    two"
    with pytest.raises(IniError, match="empty line"):
        format_value("one\n\ntwo")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "debug",
            "nova_conf_overrides is a string, not a mapping of sections; write it as nova_conf_overrides: {SECTION",
        ),
        ([], "nova_conf_overrides is a list, not a mapping of sections"),
        ({"DEFAULT": True}, "nova_conf_overrides: section 'DEFAULT' is a boolean, not a mapping of options"),
        ({"DEFAULT": None}, "section 'DEFAULT' is a null, not"),
        ({"[DEFAULT]": {}}, "nova_conf_overrides: '[DEFAULT]' is not a section name"),
        ({"DEFAULT": {"a=b": 1}}, "'a=b' in section 'DEFAULT' is not an option name"),
        ({"DEFAULT": {1: 1}}, "1 in section 'DEFAULT' is not an option name"),
        ({"DEFAULT": {"a": [[1]]}}, "option 'a' in section 'DEFAULT': a list cannot be an option's value"),
    ],
)
def test_overrides_of_another_shape_are_refused(overrides: object, message: str) -> None:
    with pytest.raises(IniError) as caught:
        check_overrides(overrides, "nova_conf_overrides")
    assert message in str(caught.value)
