# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Joining a host to OVN, with recorded output of ovs-vsctl 3.5."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.network import ovs_chassis
from ansible.module_utils.testing import patch_module_args

# ovs-vsctl --format=json --columns=... list TABLE on a host of a running cloud.
JOINED = {
    "Open_vSwitch": '{"data":[[["map",[["hostname","nova1"],["ovn-bridge-datapath-type","netdev"],'
    '["ovn-bridge-mappings","physnet1:br-provider"],["ovn-encap-ip","10.0.0.11"],["ovn-encap-type","geneve"],'
    '["ovn-remote","tcp:10.0.0.11:6642"],["system-id","baa07756-c184-4977-8a41-afa702119483"]]]]],'
    '"headings":["external_ids"]}',
    "Manager": '{"data":[["ptcp:6640:127.0.0.1"]],"headings":["target"]}',
    "SSL": '{"data":[["/etc/k","/etc/c","/etc/a"]],"headings":["private_key","certificate","ca_cert"]}',
    "Bridge": '{"data":[["br-int","netdev",["set",[["uuid","2c16815a-117e-4d8a-9ba1-979d3b9ae9ab"],'
    '["uuid","c9bc3586-6c1f-4626-a836-2819370b7731"]]]],["br-provider","netdev",["set",'
    '[["uuid","5f4591be-03fe-4f9c-8bc3-123893831cbc"],["uuid","eb0cea55-9018-432f-a561-4bdc83e1401f"]]]]],'
    '"headings":["name","datapath_type","ports"]}',
    "Port": '{"data":[[["uuid","eb0cea55-9018-432f-a561-4bdc83e1401f"],"br-provider"],'
    '[["uuid","c9bc3586-6c1f-4626-a836-2819370b7731"],"tap37cc4e90-50"],'
    '[["uuid","2c16815a-117e-4d8a-9ba1-979d3b9ae9ab"],"br-int"],'
    '[["uuid","5f4591be-03fe-4f9c-8bc3-123893831cbc"],"ovs-br0"]],"headings":["_uuid","name"]}',
    "Interface": '{"data":[["ovs-br0",5],["br-int",11],["tap37cc4e90-50",12]],"headings":["name","ifindex"]}',
}
# The output for a new database.
EMPTY = {
    "Open_vSwitch": '{"data":[[["map",[]]]],"headings":["external_ids"]}',
    "Manager": '{"data":[],"headings":["target"]}',
    "SSL": '{"data":[],"headings":["private_key","certificate","ca_cert"]}',
    "Bridge": '{"data":[],"headings":["name","datapath_type","ports"]}',
    "Port": '{"data":[],"headings":["_uuid","name"]}',
    "Interface": '{"data":[],"headings":["name","ifindex"]}',
}
# A bridge of the default datapath type with no port but its own, a bridge with a port, and two managers.
TWO_BRIDGES = {
    "Open_vSwitch": r'{"data":[[["map",[["a","x:\"y, {z}= $"]]]]],"headings":["external_ids"]}',
    "Manager": '{"data":[["ptcp:6640:127.0.0.1"],["ptcp:6641:127.0.0.1"]],"headings":["target"]}',
    "SSL": '{"data":[],"headings":["private_key","certificate","ca_cert"]}',
    "Bridge": '{"data":[["br-two","netdev",["set",[["uuid","bfc6c3c7-de7f-41de-a6c5-5b2367892333"],'
    '["uuid","cc15f3e0-ad13-44e4-96a5-50745249ad08"]]]],'
    '["br-one","",["uuid","85162394-5d85-4942-b329-8b1da8de3674"]]],"headings":["name","datapath_type","ports"]}',
    "Port": '{"data":[[["uuid","cc15f3e0-ad13-44e4-96a5-50745249ad08"],"dummy7"],'
    '[["uuid","85162394-5d85-4942-b329-8b1da8de3674"],"br-one"],'
    '[["uuid","bfc6c3c7-de7f-41de-a6c5-5b2367892333"],"br-two"]],"headings":["_uuid","name"]}',
    "Interface": '{"data":[["dummy7",["set",[]]]],"headings":["name","ifindex"]}',
}
ARGUMENTS: dict[str, Any] = {
    "external_ids": {"ovn-remote": "tcp:10.0.0.11:6642", "ovn-encap-type": "geneve", "ovn-encap-ip": "10.0.0.11"},
    "managers": ["ptcp:6640:127.0.0.1"],
    "bridges": [{"name": "br-provider", "datapath_type": "netdev", "ports": ["ovs-br0"]}],
}
FAKE_OVS_VSCTL = """#!/bin/sh
# Prints a recorded table, and records every other call, one word to a line.
for word; do last=$word; done
case " $* " in
*" list "*) cat "$FAKE/$last" ;;
*) printf '%s\\n' "$@" > "$FAKE/call"
   if [ -e "$FAKE/refuse" ]; then cat "$FAKE/refuse" >&2; exit 1; fi ;;
esac
"""


class Fake:
    """An ovs-vsctl that prints recorded tables."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def shows(self, tables: dict[str, str]) -> None:
        for name, text in tables.items():
            (self.directory / name).write_text(text)

    def call(self) -> list[str]:
        """Return the words of the last call that changes something."""
        path = self.directory / "call"
        return path.read_text().splitlines() if path.exists() else []


OPEN_INDEXES = ovs_chassis.open_indexes
INDEXES = {"ovs-br0": 5, "br-int": 11, "tap37cc4e90-50": 12}


@pytest.fixture(autouse=True)
def indexes(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The indexes of the kernel's network devices."""
    present = dict(INDEXES)
    monkeypatch.setattr(ovs_chassis, "kernel_index", lambda name: present.get(name, 0))
    monkeypatch.setattr(ovs_chassis, "open_indexes", lambda: set(INDEXES.values()))
    return present


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    program = tmp_path / "bin" / "ovs-vsctl"
    program.parent.mkdir()
    program.write_text(FAKE_OVS_VSCTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(tmp_path))
    return Fake(tmp_path)


def run(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        ovs_chassis.run(AnsibleModule(argument_spec=ovs_chassis.ARGUMENT_SPEC, supports_check_mode=True))
    return dict(json.loads(capsys.readouterr().out))


def state(tables: dict[str, str]) -> ovs_chassis.State:
    return ovs_chassis.state_from({name: ovs_chassis.table(text) for name, text in tables.items()})


def planned(tables: dict[str, str], **wanted: Any) -> list[list[str]]:
    defaults = {"datapath_type": "system", "ports": [], "exclusive": False, "state": "present"}
    wanted["bridges"] = [defaults | bridge for bridge in wanted.get("bridges", [])]
    commands, _, _ = ovs_chassis.plan(state(tables), {"external_ids": {}, "managers": None, "ssl": None} | wanted)
    return commands


def test_state_of_a_joined_host() -> None:
    now = state(JOINED)
    assert now.external_ids["ovn-bridge-mappings"] == "physnet1:br-provider"
    assert len(now.external_ids) == 7
    assert now.managers == ["ptcp:6640:127.0.0.1"]
    assert now.bridges == {
        "br-int": {"datapath_type": "netdev", "ports": ["br-int", "tap37cc4e90-50"]},
        "br-provider": {"datapath_type": "netdev", "ports": ["ovs-br0", "br-provider"]},
    }


def test_state_of_a_new_database_and_of_a_set_of_one() -> None:
    assert state(EMPTY) == ovs_chassis.State()
    now = state(TWO_BRIDGES)
    assert now.external_ids == {"a": 'x:"y, {z}= $'}
    assert now.bridges["br-one"] == {"datapath_type": "system", "ports": ["br-one"]}


def test_a_value_that_looks_like_notation_stays_text() -> None:
    text = '{"data":[["set","map"]],"headings":["name","datapath_type"]}'
    assert ovs_chassis.table(text) == [{"name": "set", "datapath_type": "map"}]


@pytest.mark.parametrize(
    ("wanted", "commands"),
    [
        ({"external_ids": {"ovn-encap-ip": "10.0.0.11"}}, []),
        (
            {"external_ids": {"ovn-encap-ip": "10.0.0.12"}},
            [["set", "Open_vSwitch", ".", 'external-ids:ovn-encap-ip="10.0.0.12"']],
        ),
        ({"external_ids": {"x": 'a"b'}}, [["set", "Open_vSwitch", ".", 'external-ids:x="a\\"b"']]),
        ({"external_ids": {"x": 7}}, [["set", "Open_vSwitch", ".", 'external-ids:x="7"']]),
        ({"external_ids": {"hostname": ""}}, [["remove", "Open_vSwitch", ".", "external-ids", "hostname"]]),
        ({"external_ids": {"never-set": ""}}, []),
        ({"managers": ["ptcp:6640:127.0.0.1"]}, []),
        ({"managers": ["ptcp:6640"]}, [["set-manager", "ptcp:6640"]]),
        # set-manager needs at least one.
        ({"managers": []}, [["del-manager"]]),
        ({"ssl": {"private_key": "/etc/k", "certificate": "/etc/c", "ca_cert": "/etc/a"}}, []),
        (
            {"ssl": {"private_key": "/etc/k", "certificate": "/etc/c", "ca_cert": "/etc/b"}},
            [["set-ssl", "/etc/k", "/etc/c", "/etc/b"]],
        ),
        ({"bridges": [{"name": "br-int", "datapath_type": "netdev", "ports": []}]}, []),
        (
            {"bridges": [{"name": "br-int", "datapath_type": "system", "ports": []}]},
            [["--may-exist", "add-br", "br-int"], ["set", "Bridge", "br-int", "datapath_type=system"]],
        ),
        # A port of another bridge is moved.
        (
            {"bridges": [{"name": "br-int", "datapath_type": "netdev", "ports": ["br-int", "ovs-br0"]}]},
            [["--if-exists", "del-port", "ovs-br0"], ["add-port", "br-int", "ovs-br0"]],
        ),
        # exclusive removes ports that are not listed, except the port of the bridge itself.
        (
            {"bridges": [{"name": "br-provider", "datapath_type": "netdev", "ports": ["eth2"], "exclusive": True}]},
            [
                ["--if-exists", "del-port", "eth2"],
                ["add-port", "br-provider", "eth2"],
                ["--if-exists", "del-port", "br-provider", "ovs-br0"],
            ],
        ),
        (
            {
                "bridges": [
                    {"name": "br-int", "datapath_type": "netdev", "ports": ["tap37cc4e90-50"], "exclusive": True}
                ]
            },
            [],
        ),
        ({"bridges": [{"name": "br-provider", "state": "absent"}]}, [["--if-exists", "del-br", "br-provider"]]),
        ({"bridges": [{"name": "br-other", "ports": ["eth2"], "state": "absent"}]}, []),
    ],
)
def test_plan_from_a_joined_host(wanted: dict[str, Any], commands: list[list[str]]) -> None:
    assert planned(JOINED, **wanted) == commands


@pytest.mark.parametrize("now", [17, 0])
def test_a_device_that_was_created_again_is_opened_again(now: int, indexes: dict[str, int]) -> None:
    indexes["ovs-br0"] = now
    assert planned(JOINED, bridges=[{"name": "br-provider", "datapath_type": "netdev", "ports": ["ovs-br0"]}]) == [
        ["del-port", "br-provider", "ovs-br0"],
        ["add-port", "br-provider", "ovs-br0"],
    ]
    # Ports that nobody asked for are left alone.
    assert planned(JOINED, bridges=[{"name": "br-provider", "datapath_type": "netdev", "ports": []}]) == []


def test_a_port_is_closed_before_it_is_opened_again(
    fake: Fake, indexes: dict[str, int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.shows(JOINED)
    indexes["ovs-br0"] = 17
    calls: list[tuple[str, ...]] = []
    real = ovs_chassis.ovs_vsctl

    def recorded(module: AnsibleModule, *arguments: str) -> str:
        calls.append(arguments)
        return real(module, *arguments)

    monkeypatch.setattr(ovs_chassis, "ovs_vsctl", recorded)
    bridge = {"name": "br-provider", "datapath_type": "netdev", "ports": ["ovs-br0"]}
    assert run(capsys, bridges=[bridge])["changes"] == ["br-provider:ovs-br0 = the present device"]
    assert calls[-2:] == [("--", "del-port", "br-provider", "ovs-br0"), ("--", "add-port", "br-provider", "ovs-br0")]


def test_a_port_without_a_device_has_no_index(indexes: dict[str, int]) -> None:
    assert state(TWO_BRIDGES).stale == ["dummy7"]
    del indexes["ovs-br0"]
    gone = JOINED | {"Interface": '{"data":[["ovs-br0",0]],"headings":["name","ifindex"]}'}
    assert state(gone).stale == ["ovs-br0"]


def test_a_port_in_user_space_needs_a_socket_of_its_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded after the device was deleted and created again."""
    sockets = tmp_path / "packet"
    sockets.write_text(
        "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n"
        "00000000a4d5a2f1 3      3    0003   11    1 0      0      52001\n"
        "000000008a1b6f1c 3      3    0003   4     0 0      0      52002\n"
    )
    assert OPEN_INDEXES(sockets) == {4, 11}
    monkeypatch.setattr(ovs_chassis, "open_indexes", lambda: {4, 11, 12})
    assert state(JOINED).stale == ["ovs-br0"]
    kernel = {name: text.replace('"netdev"', '"system"') for name, text in JOINED.items()}
    assert state(kernel).stale == []


def test_the_order_of_managers_does_not_matter() -> None:
    assert planned(TWO_BRIDGES, managers=["ptcp:6641:127.0.0.1", "ptcp:6640:127.0.0.1"]) == []


def test_the_kernels_datapath_is_the_default() -> None:
    assert planned(TWO_BRIDGES, bridges=[{"name": "br-one", "datapath_type": "system", "ports": []}]) == []


def test_a_new_host_is_joined_in_one_transaction(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.shows(EMPTY)
    result = run(capsys, **ARGUMENTS, _ansible_diff=True)
    assert result["changed"] is True
    assert " ".join(fake.call()) == (
        '--timeout=30 -- set Open_vSwitch . external-ids:ovn-encap-ip="10.0.0.11"'
        ' -- set Open_vSwitch . external-ids:ovn-encap-type="geneve"'
        ' -- set Open_vSwitch . external-ids:ovn-remote="tcp:10.0.0.11:6642"'
        " -- set-manager ptcp:6640:127.0.0.1"
        " -- --may-exist add-br br-provider -- set Bridge br-provider datapath_type=netdev"
        " -- --if-exists del-port ovs-br0 -- add-port br-provider ovs-br0"
    )
    assert result["changes"][0] == "external-ids:ovn-encap-ip = 10.0.0.11"
    assert result["diff"]["before"]["br-provider:datapath_type"] is None
    assert result["diff"]["after"]["br-provider:ports"] == ["ovs-br0"]


def test_a_joined_host_is_left_alone(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.shows(JOINED)
    result = run(capsys, **ARGUMENTS)
    assert (result["changed"], result["changes"], fake.call()) == (False, [], [])


def test_check_mode_predicts_only(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.shows(EMPTY)
    result = run(capsys, **ARGUMENTS, _ansible_check_mode=True)
    assert result["changed"] is True and len(result["changes"]) == 6
    assert fake.call() == []


def test_check_mode_before_open_vswitch_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run(capsys, **ARGUMENTS, _ansible_check_mode=True)
    assert result["changed"] is True and len(result["changes"]) == 6


def test_check_mode_does_not_know_what_a_stopped_database_holds(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    # The substitute has no tables to show, and fails.
    result = run(capsys, **ARGUMENTS, _ansible_check_mode=True)
    assert (result["changed"], result["changes"]) == (False, [])
    assert result["not_looked_at"].startswith("Open vSwitch's database could not be looked at: ")


def test_a_refusal_is_shown_with_the_servers_logs(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.shows(EMPTY)
    (fake.directory / "refuse").write_text("ovs-vsctl: no row\n")
    result = run(capsys, **ARGUMENTS)
    assert result["msg"].startswith("ovs-vsctl failed: ovs-vsctl: no row\n--- journal of ovsdb-server.service")
    assert "--- journal of ovs-vswitchd.service" in result["msg"]
