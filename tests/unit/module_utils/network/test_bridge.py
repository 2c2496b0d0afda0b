# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What network_bridge reads from a host, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.kilonova.network import bridge

OLD = "auto eth0\niface eth0 inet dhcp\n"


def test_other_managers_are_recognised(tmp_path: Path) -> None:
    root = f"{tmp_path}/"
    assert bridge.other_manager(2, root) == ""
    links = tmp_path / "run/systemd/netif/links"
    links.mkdir(parents=True)
    (links / "2").write_text("ADMIN_STATE=configured\nNETWORK_FILE=/run/systemd/network/10-netplan-eth0.network\n")
    (links / "3").write_text("ADMIN_STATE=unmanaged\n")
    assert bridge.other_manager(2, root) == "systemd-networkd (/run/systemd/network/10-netplan-eth0.network)"
    assert bridge.other_manager(3, root) == ""
    devices = tmp_path / "run/NetworkManager/devices"
    devices.mkdir(parents=True)
    (devices / "3").write_text("[device]\nmanaged=true\n")
    assert bridge.other_manager(3, root) == "NetworkManager"


def test_source_lines_name_files(tmp_path: Path) -> None:
    directory = tmp_path / "interfaces.d"
    directory.mkdir()
    for name in ("eth1", "eth2.bak", "50-cloud-init"):
        (directory / name).write_text("")
    found = bridge.expand(str(tmp_path), "source", "interfaces.d/*")
    assert [os.path.basename(path) for path in found] == ["50-cloud-init", "eth1", "eth2.bak"]
    found = bridge.expand(str(tmp_path), "source-directory", str(directory))
    assert [os.path.basename(path) for path in found] == ["50-cloud-init", "eth1"]


class Failed(Exception):
    """Raised by fail_json."""


class Module:
    """What the module's functions use of AnsibleModule."""

    check_mode = False
    _diff = False

    def __init__(self, missing: tuple[str, ...] = (), **params: Any) -> None:
        defaults = {name: option.get("default") for name, option in bridge.ARGUMENT_SPEC.items()}
        self.params = {**defaults, "interface": "eth0", "bridge": "br0", **params}
        self.missing = missing

    def fail_json(self, msg: str, **_: Any) -> None:
        """End with the message."""
        raise Failed(msg)

    def get_bin_path(self, name: str) -> str | None:
        """Where a program is."""
        return None if name in self.missing else f"/usr/sbin/{name}"

    def run_command(self, command: list[str]) -> tuple[int, str, str]:
        """The answer of `ip -json -details address show`."""
        assert command[0] == "ip"
        info = [
            {"local": "10.0.0.2", "prefixlen": 24, "scope": "global"},
            {"local": "fe80::1", "prefixlen": 64, "scope": "link"},
        ]
        common = {"mtu": 1500, "address": "02:00:00:00:00:01", "flags": ["UP"]}
        port = {"ifindex": 2, "ifname": "eth0", "master": "br0", "addr_info": [], **common}
        bridge = {"linkinfo": {"info_kind": "bridge", "info_data": {"stp_state": 0}}, "addr_info": info, **common}
        return 0, json.dumps([port, {"ifindex": 3, "ifname": "br0", **bridge}]), ""


def test_links_are_read_from_ip() -> None:
    found = bridge.links(Module())
    assert found["br0"] == {
        "index": 3, "kind": "bridge", "stp": 0, "mtu": 1500, "mac": "02:00:00:00:00:01", "up": True, "ports": ["eth0"],
        "addresses": ["10.0.0.2/24"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"bridge": "br-provider0", "veth": True}, "bridge = br-provider0: at most 11 characters"),
        ({"method": "static"}, "bridge_method = static, bridge_address = ''"),
        ({"address": "10.0.0.2/24"}, "bridge_method = auto, bridge_address = '10.0.0.2/24'"),
        ({"method": "static", "address": "10.0.0.300/24"}, "address = 10.0.0.300/24: "),
        ({"gateway_address": "router"}, "gateway_address = router: "),
    ],
)
def test_options_that_cannot_work(params: dict[str, Any], message: str) -> None:
    with pytest.raises(Failed) as failed:
        bridge.wanted_of(Module(**params))
    assert str(failed.value).startswith(message)


KERNEL = {"eth0": {"index": 2, "addresses": ["10.0.0.2/24"]}, "lo": {"index": 1, "addresses": []}}


REFUSED = [
    (Module(("brctl",)), OLD, "brctl is missing on the host. Install the package bridge-utils"),
    (Module(interface="eth7"), OLD, "flat_interface = eth7: the host has no such interface. Write one of: eth0."),
    (Module(), "auto lo\niface lo inet loopback\n", "flat_interface = eth0 has the address 10.0.0.2/24, but"),
]


@pytest.mark.parametrize(("module", "text", "message"), REFUSED)
def test_hosts_that_are_refused(module: Module, text: str, message: str) -> None:
    wanted = bridge.wanted_of(module)
    with pytest.raises(bridge.Refused) as refused:
        bridge.check_host(module, wanted, {"/etc/network/interfaces": text}, KERNEL)
    assert str(refused.value).startswith(message)


def test_without_a_stanza_the_message_says_what_to_set() -> None:
    module, text, _ = REFUSED[2]
    with pytest.raises(bridge.Refused) as refused:
        bridge.check_host(module, bridge.wanted_of(module), {"/etc/network/interfaces": text}, KERNEL)
    assert "Set bridge_method to static (with bridge_address: 10.0.0.2/24 and bridge_gateway)" in str(refused.value)


def test_an_address_that_moves_needs_no_stanza() -> None:
    text, module = REFUSED[2][1], Module(moving_addresses=["10.0.0.2/24"])
    bridge.check_host(module, bridge.wanted_of(module), {"/etc/network/interfaces": text}, KERNEL)


class Ended(SystemExit):
    """Raised by exit_json."""


class Dry(Module):
    """A dry run on a host without an interface of the wanted name."""

    check_mode = True

    def __init__(self, root: Path) -> None:
        super().__init__(interface="eth7", path=str(root / "interfaces"))
        self.result: dict[str, Any] = {}

    def exit_json(self, **result: Any) -> None:
        """End with the result."""
        self.result = result
        raise Ended


def test_a_dry_run_reports_a_refusal_and_a_run_fails(tmp_path: Path) -> None:
    (tmp_path / "interfaces").write_text(OLD)
    module = Dry(tmp_path)
    with pytest.raises(Ended):
        bridge.run(module)
    assert module.result["changed"] is False
    assert len(module.result["needs_you"]) == 1
    assert module.result["needs_you"][0].startswith("flat_interface = eth7: the host has no such interface.")
    module.check_mode = False
    with pytest.raises(Failed, match="flat_interface = eth7: the host has no such interface"):
        bridge.run(module)


def test_a_dry_run_tells_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "interfaces").write_text(OLD)
    module = Dry(tmp_path)
    module.params["interface"] = "eth0"
    monkeypatch.setattr(bridge, "validate", lambda module, text: None)
    with pytest.raises(Ended):
        bridge.run(module)
    assert module.result["changed"] is True
    assert module.result["reasons"][0] == f"{tmp_path}/interfaces differs"
    assert (tmp_path / "interfaces").read_text() == OLD


def test_host_that_is_fine() -> None:
    module = Module()
    wanted = bridge.wanted_of(module)
    bridge.check_host(module, wanted, {"/etc/network/interfaces": OLD}, KERNEL)
