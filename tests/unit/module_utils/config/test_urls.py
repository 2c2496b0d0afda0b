# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""URLs and oslo.config values that carry any character."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils.kilonova.config.passwords import derived_password
from ansible.module_utils.kilonova.config.urls import (
    database_url,
    masked_url,
    messaging_password,
    messaging_url,
    oslo_escape,
    parse_database_url,
    transport_url,
)

from plugins.filter.urls import FilterModule

UGLY = "@:/%$#'\"\\ "


def oslo_reads(line_value: str) -> str:
    """Return what oslo.config 9.7 reads from the text after ``name =``, for a value that refers to no option."""
    value = line_value.strip()
    if value and value[0] == value[-1] and value.startswith(('"', "'")):
        value = value[1:-1]
    return value.replace("\\$", "$$").replace("$$", "$")


@pytest.mark.parametrize("password", [UGLY, "plain", "a&b?c=d", "ключ", "{x}", "+"])
def test_a_database_url_keeps_every_part(password: str) -> None:
    url = parse_database_url(database_url("us@er", password, "2001:db8::1", "nova_api", ssl_ca="/etc/ssl/a b.pem"))
    assert (url.user, url.password, url.host, url.port, url.database) == (
        "us@er",
        password,
        "2001:db8::1",
        3306,
        "nova_api",
    )
    assert url.option("ssl_ca") == "/etc/ssl/a b.pem"
    assert "password" not in repr(url)


def test_a_transport_url_names_all_hosts() -> None:
    assert transport_url("openstack", "p@", ["a", "::1"]) == "rabbit://openstack:p%40@a:5672,openstack:p%40@[::1]:5672/"
    assert transport_url("u", "p", "a", "v/h", ssl="1") == "rabbit://u:p@a:5672/v%2Fh?ssl=1"
    with pytest.raises(ValueError, match="at least one host"):
        transport_url("u", "p", [])


def test_a_slash_in_the_password_of_an_account_survives_oslo_messaging() -> None:
    account = {"user": "nova", "password": "a/b", "virtual_host": "openstack"}
    assert messaging_password("a/b") == "a%2Fb"
    assert messaging_url(account, "192.0.2.1", 5671) == "rabbit://nova:a%252Fb@192.0.2.1:5671/openstack"


def test_masking_hides_every_password() -> None:
    assert masked_url(transport_url("u", UGLY, ["a", "b"])) == "rabbit://u:***@a:5672,u:***@b:5672/"
    assert masked_url(database_url("u", UGLY, "h", "d")) == "mysql+pymysql://u:***@h:3306/d"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://u:p@h/d", "scheme"),
        ("mysql+pymysql://u:p@h", "no database"),
        ("mysql+pymysql://u:se#cret@h/d", "no database|not quoted"),
        ("mysql+pymysql://u:se/cret@h/d", "not quoted|no database"),
    ],
)
def test_an_unusable_url_is_explained_without_its_password(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_database_url(url)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    "value", [UGLY, "plain", "$", "\\$", "$$x", '"', "'a'", '"a" "b"', " a", "a ", "", "100%", "a;b#c", "a=b:c"]
)
def test_an_oslo_value_is_read_back_unchanged(value: str) -> None:
    assert oslo_reads(oslo_escape(value)) == value


def test_a_line_break_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="line break"):
        oslo_escape("a\nb")


def test_filters_are_these_functions() -> None:
    filters = FilterModule().filters()
    assert filters["database_url"]("nova", UGLY, "h", "nova") == database_url("nova", UGLY, "h", "nova")
    assert filters["transport_url"]("u", UGLY, ["a"]) == transport_url("u", UGLY, ["a"])
    assert filters["derived_password"]("seed", "a", "b") == derived_password("seed", "a", "b")
    assert filters["messaging_password"](UGLY) == messaging_password(UGLY)
    assert filters["oslo_value"](UGLY) == oslo_escape(UGLY)
    with pytest.raises(AnsibleFilterError, match="oslo_escape"):
        filters["oslo_value"]("a\nb")
