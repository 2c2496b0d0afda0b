# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Reading interfaces(5)."""

from __future__ import annotations

import pytest
from ansible.module_utils.kilonova.network.interfaces import load, parse

STATIC = """\
# This file describes the network interfaces available on your system
source /etc/network/interfaces.d/*

auto lo
iface lo inet loopback

# The primary network interface
allow-hotplug eth0 eth1
iface eth0 inet static
    address 10.0.0.2
    netmask 255.255.255.0
    # the way out
    gateway 10.0.0.1
    dns-nameservers 10.0.0.53
    up ip route add 10.9.0.0/16 via 10.0.0.254 \\
        dev eth0
    up ethtool -K eth0 gro off

iface eth1 inet static
\taddress   172.16.0.1/24 \t
\tup   echo \\
     hello
"""


@pytest.mark.parametrize(
    "text",
    [STATIC, "", "auto lo", "\n\n# only a comment\n", "auto eth0\niface eth0 inet dhcp", "mapping eth*\n script x\n"],
)
def test_joined_blocks_are_the_file(text: str) -> None:
    assert "".join(block.raw for block in parse(text)) == text


def test_parse_knows_options_across_continuation_lines() -> None:
    eth0 = next(block for block in parse(STATIC) if block.names == ["eth0"] and block.kind == "iface")
    assert (eth0.family, eth0.method) == ("inet", "static")
    assert eth0.option("gateway") == "10.0.0.1"
    assert any(value.endswith("dev eth0") and "10.9.0.0/16" in value for key, value in eth0.options if key == "up")


def test_load_follows_sources_once() -> None:
    files = {"/a": "source b\nsource b\n", "/b": "source /a\nauto lo\niface lo inet loopback\n"}
    loaded = load("/a", files.get, lambda keyword, pattern: ["/" + pattern.lstrip("/")])
    assert loaded == files
