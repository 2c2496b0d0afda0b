# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Whether the engines can do without a controller: more than half of the members have to be left."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import controller_quorum as library
import pytest
from ansible.module_utils.kilonova.network import ovn_cluster
from ansible.module_utils.kilonova.system import haproxy_server, rabbitmq_cluster
from ansible.module_utils.testing import patch_module_args

HOSTS = ["a", "b", "c"]
IN_STEP = {"primary": True, "local": 4, "size": 3, "maintenance": False}


def at(host: str) -> str:
    return f"ssl:{host}:1"


class Cloud:
    """What a says of three controllers that are well."""

    def __init__(self) -> None:
        self.states: dict[str, Any] = {host: dict(IN_STEP) for host in HOSTS}
        nodes = [f"rabbit@{host}" for host in HOSTS]
        self.queue: dict[str, Any] = {"serving": True, "members": nodes, "running": list(nodes), "partitions": []}
        self.look = ovn_cluster.Look(
            "clustered", at("a"), "cluster", "0", True, dict(zip("012", map(at, HOSTS), strict=True)), list("012")
        )
        self.rows = [
            {"pxname": proxy, "svname": host, "status": "UP"} for proxy in ("keystone", "nova") for host in HOSTS
        ]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    one = Cloud()
    monkeypatch.setattr(
        subprocess, "run", lambda *args, **options: subprocess.CompletedProcess(args, 0, json.dumps(one.states), "")
    )
    monkeypatch.setattr(rabbitmq_cluster, "ask", lambda module: (one.queue, ""))
    monkeypatch.setattr(ovn_cluster, "ask", lambda module, database: one.look)
    monkeypatch.setattr(
        haproxy_server, "rows", lambda path, names, proxies: [row for row in one.rows if row["svname"] in names]
    )
    return one


def ask(capsys: pytest.CaptureFixture[str], name: str = "c", members: list[str] = HOSTS) -> list[str]:
    """Return what speaks against doing without a controller."""
    arguments = {
        **{"name": name, "members": members, "proxies": ["keystone", "nova"], "timeout": 0},
        **{"nodes": [f"rabbit@{host}" for host in members]},
        **dict.fromkeys(("northbound", "southbound"), [at(host) for host in members]),
    }
    with patch_module_args(arguments), pytest.raises(SystemExit) as end:
        library.main()
    found = json.loads(capsys.readouterr().out)
    assert bool(end.value.code) == bool(found["problems"])
    return list(found["problems"])


def test_two_of_three_can_do_without_the_third(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys) == []


def test_they_can_do_without_one_that_is_dead(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.states = {host: {**IN_STEP, "size": 2} for host in "ab"} | {"c": None}
    cloud.queue["running"].remove("rabbit@c")
    cloud.look.connected.remove("2")
    cloud.rows = [row for row in cloud.rows if row["svname"] != "c"]
    assert ask(capsys) == []
    # Nor can they do without a second one.
    problems = ask(capsys, "b")
    assert [line.partition(":")[0] for line in problems] == [
        "MariaDB",
        "RabbitMQ",
        "OVN's northbound database",
        "OVN's southbound database",
    ]


def test_one_in_maintenance_counts_as_away(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.states["b"]["maintenance"] = True
    problems = ask(capsys)
    assert problems[0] == "MariaDB: of 3 members in the cluster, only a would be in step with it"
    assert problems[1] == "RabbitMQ: of 3 nodes, only rabbit@a would be running"
    assert problems[2] == f"OVN's northbound database: of 3 members, only {at('a')} would be connected"
    assert len(problems) == 4


def test_each_engine_speaks_for_itself(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.states["b"]["local"] = 2
    assert [line.partition(":")[0] for line in ask(capsys)] == ["MariaDB"]
    cloud.states["b"]["local"] = 4
    cloud.queue["partitions"] = ["rabbit@b"]
    assert "cut off" in ask(capsys)[0]
    cloud.queue = {"serving": False}
    assert "does not serve" in ask(capsys)[0]
    cloud.queue = Cloud().queue
    cloud.look.serving = False
    assert ["knows no leader" in line for line in ask(capsys)] == [True, True]
    cloud.look.serving = True
    cloud.rows[1]["status"] = cloud.rows[0]["status"] = "NOLB"
    assert ask(capsys) == ["HAProxy finds no other controller up for keystone"]


def test_the_last_of_two_members_is_not_enough(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    del cloud.states["c"]
    for state in cloud.states.values():
        state["size"] = 2
    assert ask(capsys, "b", ["a", "b"])[0].startswith("MariaDB: of 2 members")


def test_an_engine_that_cannot_be_asked(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: Any, **_options: Any) -> None:
        raise OSError("no such file")

    monkeypatch.setattr(haproxy_server, "rows", refuse)
    assert ask(capsys) == ["HAProxy does not answer at /run/haproxy/admin.sock: no such file"]
    monkeypatch.setattr(subprocess, "run", refuse)
    assert ask(capsys) == ["MariaDB: its members cannot be asked: no such file"]
