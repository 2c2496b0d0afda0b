# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The problems found in a cloud's state, and their report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.kilonova.cloud import health
from ansible.module_utils.kilonova.cloud.api import CloudError
from ansible.module_utils.kilonova.system.service_index import read_index

from plugins.filter.health import FilterModule


def state(**changes: Any) -> dict[str, Any]:
    """A healthy cloud with one host."""
    services = [
        {"binary": binary, "host": "node1", "zone": "nova", "status": "enabled", "state": "up"}
        | {"forced_down": False, "disabled_reason": ""}
        for binary in ("nova-scheduler", "nova-conductor", "nova-compute")
    ]
    agents = [
        {"type": name, "binary": "x", "host": "node1", "alive": True, "enabled": True}
        for name in ("OVN Controller Gateway agent", "OVN Metadata agent")
    ]
    sizes = {"vcpus": 2, "vcpus_used": 1, "ram": 4096, "ram_used": 512}
    return {
        "services": services,
        "agents": agents,
        "hypervisors": [
            {"name": "node1.example", "host": "node1", "type": "QEMU", "state": "up", "servers": 1} | sizes
        ],
        "providers": {"node1.example": sizes},
        "images": [{"name": "guest", "status": "active", "visibility": "public", "size": 2**21}],
        "servers": [
            {
                "id": "1",
                "name": "my_vm",
                "status": "ACTIVE",
                "fault": "",
                "host": "node1",
                "flavor": {"name": "m1.tiny"},
                "interfaces": [{"address": "192.168.1.9"}],
                "ports": [{"port_id": "p", "mac": "fa:16:3e:00:00:01", "address": "192.168.1.9"}],
                "port_status": {"p": "ACTIVE"},
            }
        ],
    } | changes


def judge(found: dict[str, Any], computes: tuple[str, ...] = ("node1",)) -> list[tuple[str, str]]:
    problems = health.judge(found, list(computes), ["guest"], ["my_vm"])
    assert {one["layer"] for one in problems} <= set(read_index().layers)
    return [(one["layer"], one["message"]) for one in problems]


def changed(part: str, index: int, **fields: Any) -> dict[str, Any]:
    found = state()
    found[part][index] |= fields
    return found


def test_healthy() -> None:
    assert judge(state()) == []


@pytest.mark.parametrize(
    ("found", "layer", "message"),
    [
        (changed("services", 0, state="down"), "Nova scheduler", "nova-scheduler on node1 is down"),
        (changed("services", 1, state="down", forced_down=True), "Nova conductor", "was forced down"),
        (changed("services", 2, status="disabled"), "Nova compute", "service set --enable node1 nova-compute"),
        (changed("agents", 0, alive=False), "OVN", "OVN Controller Gateway agent on node1 is not alive"),
        (changed("agents", 1, enabled=False), "OVN metadata agent", "is disabled"),
        (changed("images", 0, status="queued"), "Glance", "'guest' is queued, not active"),
        (changed("servers", 0, status="SHUTOFF"), "Nova compute", "openstack server start 1"),
        (changed("servers", 0, status="ERROR", host="", fault="No host"), "Nova scheduler", "is ERROR: No host"),
        (changed("servers", 0, ports=[]), "Neutron", "has no port"),
        (
            changed("servers", 0, interfaces=[]),
            "Neutron",
            "gave the server 'my_vm' the address 192.168.1.9, Nova says []",
        ),
        (
            changed("servers", 0, port_status={"p": "DOWN"}),
            "OVN",
            "the port p of the server 'my_vm' is DOWN",
        ),
        (state(images=[]), "Glance", "'guest' is not listed"),
        (state(servers=[]), "Nova API", "there is no server 'my_vm'"),
        (state(hypervisors=[]), "Nova compute", "node1 is not a hypervisor yet"),
        (state(providers={}), "Placement", "no inventory of node1.example"),
        (state(agents=state()["agents"][:1]), "OVN metadata agent", "node1 has no OVN Metadata agent"),
        (state(services=state()["services"][1:]), "Nova scheduler", "no nova-scheduler has ever reported"),
    ],
)
def test_each_problem_names_its_layer(found: dict[str, Any], layer: str, message: str) -> None:
    problems = judge(found)
    assert len(problems) == 1
    assert problems[0][0] == layer
    assert message in problems[0][1]


def test_host_that_never_reported_is_one_problem_per_layer() -> None:
    assert [layer for layer, _ in judge(state(), ("node1", "node2"))] == ["Nova compute", "OVN", "OVN metadata agent"]


def test_ports_are_those_of_guests() -> None:
    ports = [
        {"id": "p", "device_id": "1", "device_owner": "compute:nova", "mac_address": "m", "status": "ACTIVE",
         "fixed_ips": [{"ip_address": "192.168.1.9"}]},
        {"id": "d", "device_id": "ovnmeta", "device_owner": "network:distributed", "mac_address": "m", "status": "DOWN",
         "fixed_ips": []},
    ]  # fmt: skip
    api = SimpleNamespace(listing=lambda service, path, key: ports)
    assert health.read_ports(api) == {  # type: ignore[arg-type]
        "1": [{"port_id": "p", "mac": "m", "address": "192.168.1.9", "status": "ACTIVE"}]
    }


def test_part_that_does_not_answer_is_a_problem_and_the_rest_is_read() -> None:
    def listing(service: str, path: str, key: str, **params: Any) -> list[dict[str, Any]]:
        if path == "/agents":
            raise CloudError("Neutron", "GET /agents got 500: broken", 500)
        return []

    api = SimpleNamespace(
        listing=listing, get=lambda service, path: {"resource_providers": []}, offers=lambda service: False
    )
    found, problems = health.read_all(api)  # type: ignore[arg-type]
    assert "agents" not in found
    assert found["services"] == []
    assert [(one["layer"], one["message"]) for one in problems] == [("Neutron", "GET /agents got 500: broken")]


def test_logs_are_those_of_this_host() -> None:
    problems = [
        health.problem("Nova compute", "a", "node2"),
        health.problem("OVN", "b", "node1", "node2"),
        health.problem("Glance", "c"),
        health.problem("Glance", "d"),
    ]
    assert health.layers_here(problems, "node1") == ["OVN", "Glance"]


def test_report() -> None:
    lines = FilterModule().filters()["health_lines"](state(problems=[]))
    assert "  SERVICE         HOST   STATE  STATUS" in lines
    assert "  node1.example  QEMU  up     1       1/2    512/4096" in lines
    assert "  my_vm   ACTIVE  node1  192.168.1.9  m1.tiny" in lines
    assert lines[-1] == "No problem seen."


def test_report_of_a_broken_cloud() -> None:
    lines = FilterModule().filters()["health_lines"]({"problems": [{"layer": "Nova API", "message": "down"}]})
    assert "Nova services: none" in lines
    assert lines[-2:] == ["Problems", "  Nova API: down"]


@pytest.mark.parametrize(
    ("found", "passes"),
    [
        (changed("services", 2, state="down"), True),
        (changed("services", 2, state="down", forced_down=True), False),
        (changed("services", 2, status="disabled", disabled_reason="maintenance"), False),
        (changed("services", 2, status="disabled", disabled_reason="AUTO: Connection to libvirt lost: 1"), True),
        (changed("agents", 0, alive=False), True),
        (changed("servers", 0, status="BUILD"), True),
        (changed("servers", 0, status="SHUTOFF"), False),
        (state(images=[]), False),
        (changed("images", 0, status="queued"), True),
    ],
)
def test_what_passes_by_itself_is_waited_for(
    found: dict[str, Any], passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look takes a second of this clock."""
    looks: list[float] = []
    monkeypatch.setattr(health, "layer_logs", lambda layers, lines: "")
    monkeypatch.setattr(health, "time", SimpleNamespace(monotonic=lambda: float(len(looks)), sleep=looks.append))
    monkeypatch.setattr(health, "read_all", lambda api, images: (dict(found), []))
    with pytest.raises(health.Unhealthy):
        health.healthy(None, ["node1"], ["guest"], ["my_vm"], 60)  # type: ignore[arg-type]
    assert len(looks) == (60 if passes else 5)


def test_a_host_that_is_known_to_be_silent_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    found = changed("agents", 0, alive=False)
    host = found["agents"][0]["host"]
    monkeypatch.setattr(health, "read_all", lambda api, images: (dict(found), []))
    expected = (["node1"], ["guest"], ["my_vm"])
    assert [one["hosts"] for one in health.look(None, *expected)[1]] == [[host]]  # type: ignore[arg-type]
    assert health.look(None, *expected, [host])[1] == []  # type: ignore[arg-type]
