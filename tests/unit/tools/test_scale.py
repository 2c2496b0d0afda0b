# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Test tools/scale and the callback that times hosts."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.callback import host_times
from tools.scale import fake_computes, plan, plot, probe, report

PROJECT = Path(__file__).resolve().parents[3]
SVG = "{http://www.w3.org/2000/svg}"


# ---------------------------------------------------------------- tools/scale/plan.py
def test_sizes() -> None:
    assert plan.sizes("1,2, 8") == [1, 2, 8]


@pytest.mark.parametrize("text", ["", "0,1", "2,1", "1,1", "1,x", "-1"])
def test_invalid_sizes(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        plan.sizes(text)


@pytest.mark.parametrize(
    ("present", "wanted", "steps"),
    [
        (1, 2, [("add", ["cmp2"])]),
        (2, 4, [("fill", ["cmp3"]), ("add", ["cmp4"])]),
        (4, 8, [("fill", ["cmp5", "cmp6", "cmp7"]), ("add", ["cmp8"])]),
        (2, 2, []),
    ],
)
def test_the_last_compute_is_added_alone(present: int, wanted: int, steps: list[tuple[str, list[str]]]) -> None:
    assert plan.growth_steps(present, wanted) == steps


def test_inventory_keeps_the_addresses_of_existing_machines() -> None:
    def machines(count: int) -> list[str]:
        groups = plan.inventory(PROJECT, plan.computes_up_to(count))["all"]["children"]
        assert list(groups["compute"]["hosts"]) == plan.computes_up_to(count)
        return list(groups["lab"]["hosts"])

    assert machines(4)[: len(machines(2))] == machines(2) == ["ctl1", "cmp1", "cmp2"]


def test_inventory_has_the_groups_and_variables_of_other_labs() -> None:
    ours = plan.inventory(PROJECT, ["cmp1", "cmp2"])["all"]["children"]
    lab = yaml.safe_load((PROJECT / "inventory/lab/hosts.yml").read_text())["all"]["children"]
    assert {name: set(group["hosts"]) for name, group in ours.items()} == {
        "lab": {"ctl1", "cmp1", "cmp2"},
        "controller": {"ctl1"},
        "compute": {"cmp1", "cmp2"},
    }
    assert set(ours) == set(lab)
    assert set(ours["lab"]["vars"]) == set(lab["lab"]["vars"])


def test_available_memory() -> None:
    meminfo = "MemTotal:       24605184 kB\nMemFree:  100 kB\nMemAvailable:   20480000 kB\n"
    assert plan.memory_available_mib(meminfo) == 20000


def test_shortage_names_the_resource() -> None:
    enough = (10_000, 100_000)
    assert plan.shortage(*enough, 5000, 50_000) == ""
    assert plan.shortage(*enough, 9000, 50_000).startswith("10000 MiB of memory")
    assert plan.shortage(*enough, 5000, 99_000).startswith("100000 MiB of disk")


def test_changed_hosts() -> None:
    record = {
        "hosts": {
            "ctl1": {"changed": 0, "changed_tasks": []},
            "cmp1": {"changed": 1, "changed_tasks": ["nova : Write"]},
        }
    }
    assert plan.changed_hosts(record) == {"cmp1": ["nova : Write"]}


# ---------------------------------------------------------------- plugins/callback/host_times.py
class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_times_count_only_tasks_of_the_host() -> None:
    clock = Clock()
    times = host_times.HostTimes(clock)
    times.begin_play("first")
    times.begin_task("a", "1")
    times.begin_task("b", "1")
    clock.now = 2.0
    times.end_task("a", "1", "Task", changed=False)
    clock.now = 5.0
    times.end_task("b", "1", "Task", changed=True)
    times.begin_play("second")
    times.begin_task("b", "2")
    clock.now = 6.0
    times.end_task("b", "2", "Other", changed=False)
    times.end_task("b", "never begun", "Other", changed=True)
    record = times.record({"a": {"changed": 0}, "b": {"changed": 1}})
    assert record == {
        "seconds": 6.0,
        "plays": [{"name": "first", "seconds": 5.0}, {"name": "second", "seconds": 1.0}],
        "hosts": {
            "a": {"changed": 0, "plays": {"first": 2.0}, "changed_tasks": [], "seconds": 2.0},
            "b": {"changed": 1, "plays": {"first": 5.0, "second": 1.0}, "changed_tasks": ["Task"], "seconds": 6.0},
        },
    }


# ---------------------------------------------------------------- tools/scale/fake_computes.py
def test_each_simulated_compute_has_its_name_state_and_the_fake_driver() -> None:
    assert fake_computes.compute_names("fake", 9, 11) == ["fake-0009", "fake-0010", "fake-0011"]
    assert fake_computes.configuration("fake-0009", Path("/state")).splitlines() == [
        "[DEFAULT]",
        "host = fake-0009",
        "state_path = /state/fake-0009",
        "compute_driver = fake.FakeDriverWithoutFakeNodes",
    ]


# ---------------------------------------------------------------- tools/scale/probe.py
@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("2:cpu:/x\n1:name=systemd:/system.slice/nova-api.service\n", "nova-api.service"),
        ("0::/system.slice/mariadb.service\n", "mariadb.service"),
        ("1:name=systemd:/user.slice/user-0.slice/session-3.scope\n", "session-3.scope"),
        ("1:name=systemd:/init.scope\n0::/\n", "init.scope"),
        ("2:cpu:/system.slice/wrong.service\n", "other"),
    ],
)
def test_unit_of_a_process(cgroup: str, unit: str) -> None:
    assert probe.unit_of(cgroup) == unit


def test_cpu_time_counts_children_that_ended() -> None:
    # Fields 14 to 17: user and system time of the process, and of its children.
    stat = "7 (a (very) odd name) S 1 7 7 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 1 0 99 1000 10"
    assert probe.cpu_ticks(stat) == 124


def test_cpu_between_two_samples() -> None:
    before = {("a", "1"): 100, ("b", "2"): 50, ("b", "3"): 7}
    after = {("a", "1"): 100 + 2 * probe.TICKS, ("b", "2"): 50, ("b", "4"): probe.TICKS}
    assert probe.cpu_between(before, after) == {"a": 2.0, "b": 1.0}


def test_share_of_memory() -> None:
    assert probe.pss_kib("Rss:  900 kB\nPss:    1234 kB\nPss_Dirty:   9 kB\n") == 1234
    assert probe.pss_kib("") == 0


def test_limit_of_files() -> None:
    assert (
        probe.limit_of_files("Max processes  1 2 processes\nMax open files            65536    65536   files\n")
        == 65536
    )


def test_connections_by_port() -> None:
    listing = (
        "0      0      10.0.0.10:5671       10.0.0.11:40000\n"
        "0      0      [::ffff:10.0.0.10]:5671       [::ffff:10.0.0.11]:40001\n"
        "0      0      10.0.0.11:40002       10.0.0.10:5671\n"
        "0      0      10.0.0.10:16642      10.0.0.11:40003\n"
    )
    assert probe.connections(listing) == dict.fromkeys(probe.PORTS, 0) | {"rabbitmq": 2, "ovn_southbound": 1}


def test_client_of_a_connection() -> None:
    # As rabbitmqctl list_connections client_properties gives them in JSON.
    product = ["product", "longstr", "py-amqp"]
    assert probe.client_name([product, ["connection_name", "longstr", "nova-compute:7:f334"]]) == "nova-compute"
    assert probe.client_name([product]) == "unnamed"


def test_this_process_is_measured_by_its_unit() -> None:
    assert sum(probe.memory_by_unit().values()) > 0
    ticks = probe.ticks_by_process()
    assert probe.cpu_between(ticks, ticks) and not any(probe.cpu_between(ticks, ticks).values())


def test_poll_ends_with_the_condition_or_the_time() -> None:
    assert probe.poll(lambda: True, 10) == (True, 0.0)
    assert probe.poll(lambda: False, 0)[0] is False


# ---------------------------------------------------------------- tools/scale/report.py
def controller(memory: float, connections: int) -> dict[str, Any]:
    return {
        "memory_total_mib": memory,
        "cpu_total_per_minute": 3.0,
        "queries_per_second": 9.0,
        "rabbitmq": {"connections": connections, "channels": 5, "queues": 6, "memory_mib": 120.5, "files": 70},
        "mariadb": {"threads_connected": 30, "max_used_connections": 44},
        "connections": {"ovn_southbound": 4},
    }


def results() -> dict[str, Any]:
    plays = {"Prepare hosts": 60.0, "Deploy computes": 20.0, "Verify computes": 5.0, "A new play": 1.0}
    host = {"changed": 3, "changed_tasks": [], "plays": plays, "seconds": 86.0}
    still = {"changed": 0, "changed_tasks": [], "plays": plays, "seconds": 10.0}

    def unchanged(computes: int, verify: bool, seconds: float) -> dict[str, Any]:
        run = {"kind": "unchanged", "computes": computes, "added": [], "verify": verify, "seconds": seconds}
        return run | {"hosts": {"cmp1": still}}

    def size(simulated: int, memory: float, connections: int) -> dict[str, Any]:
        return {
            "computes": 1,
            "simulated": simulated,
            "simulation": True,
            "simulation_mib": 50.0 * simulated,
            "controller": controller(memory, connections),
        }

    return {
        "runs": [
            {"kind": "first", "computes": 1, "added": ["ctl1", "cmp1"], "verify": True, "seconds": 400.0}
            | {"hosts": {"ctl1": host, "cmp1": host}},
            unchanged(1, True, 30.0),
            unchanged(1, True, 50.0),
            unchanged(1, True, 31.0),
            unchanged(1, False, 20.0),
            {"kind": "add", "computes": 2, "added": ["cmp2"], "verify": True, "seconds": 100.0}
            | {"hosts": {"cmp2": host}},
            unchanged(2, True, 33.0),
            unchanged(2, False, 21.5),
        ],
        "sizes": [
            {"computes": 1, "simulated": 0, "simulation": False, "controller": controller(3000.0, 20)},
            size(0, 3000.0, 20),
            size(50, 3500.0, 120),
            size(100, 4000.0, 220)
            | {
                "new": 50,
                "up_seconds": 44.0,
                "burst": {"asked": 50, "active": 49, "seconds": 60.0, "requests_seconds": 20.0}
                | {"computes_used": 30, "delete_seconds": 9.0},
                "lists": {"api_services": 0.5},
            },
        ],
        "remarks": ["Stopped before compute 8: for a reason."],
    }


def test_phases_of_all_plays_of_the_deployment_are_known() -> None:
    plays = [
        play
        for path in ("site.yml", "playbooks/preflight.yml", "playbooks/verify.yml", "playbooks/lab-create.yml")
        for play in named(path)
    ]
    assert len(plays) > 10
    assert [play for play in plays if report.phase_of(play) == "other"] == []


def named(path: str) -> list[str]:
    plays = yaml.safe_load((PROJECT / path).read_text())
    return [play["name"] for play in plays if "hosts" in play]


def test_phases_lose_no_time() -> None:
    plays = {"Prepare hosts": 60.0, "Reach hosts": 1.0, "Check services": 2.0, "A new play": 4.0}
    assert report.phases(plays) == {"packages, bridge": 60.0, "preflight": 3.0, "other": 4.0}


def test_straight_line() -> None:
    slope, rest = report.straight_line([(1, 5.0), (2, 7.0), (4, 11.0)])
    assert (slope, rest) == pytest.approx((2.0, 3.0))
    with pytest.raises(ValueError, match="two places"):
        report.straight_line([(1, 5.0), (1, 6.0)])


def test_the_median_of_unchanged_runs_counts() -> None:
    assert report.unchanged_points(results(), True) == [(1, 31.0), (2, 33.0)]
    assert report.unchanged_points(results(), False) == [(1, 20.0), (2, 21.5)]


def test_growth_per_compute() -> None:
    found = {name: (slope, rest) for name, slope, rest in report.growth(results())}
    assert found["s of the same without verify, per compute"] == pytest.approx((1.5, 18.5))
    assert found["RabbitMQ connections, per simulated compute"] == pytest.approx((2.0, 20.0))
    assert found["MiB of the controller, per simulated compute"] == pytest.approx((10.0, 3000.0))


def test_aim_of_a_further_compute_is_shown() -> None:
    row = next(line for line in report.growth_table(results()).splitlines() if report.RUN_PER_COMPUTE in line)
    assert [cell.strip() for cell in row.strip("|").split("|")][1:] == ["2", "<= 1.0", "29"]


def test_results_of_an_earlier_measurement_are_shown(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results()))
    command = [sys.executable, "-m", "tools.scale", "--show", str(tmp_path / "results.json")]
    command += ["--svg", str(tmp_path / "plot.svg")]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert "### Whole runs" in done.stdout
    ET.parse(tmp_path / "plot.svg")


def test_tables() -> None:
    text = report.markdown(results())
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert ["1", "400", "", "31.0", "20.0"] in rows
    assert ["2", "", "100", "33.0", "21.5"] in rows
    hosts = [row for row in rows if row[0] in ("ctl1", "cmp1", "cmp2")]
    assert [row[:2] for row in hosts] == [["ctl1", "cmp1"], ["cmp1", "ctl1"], ["cmp2", ""]]
    # 60 s for packages, 20 s for the compute, 5 s for verification, 1 s for a play without a column.
    assert hosts[2] == ["cmp2", "", "", "", "60.0", "", "", "20.0", "", "5.0", "1.0", "86.0"]
    assert ["100", "49/50", "20.0", "60.0", "30", "9.0"] in rows
    assert ["100", "50", "44.0", "", "0.5", "", "", ""] in rows
    assert "Stopped before compute 8" in text
    widths = [len(row) for row in rows]
    assert all(width > 2 for width in widths)


@pytest.mark.parametrize(
    ("highest", "expected"),
    [(0, [0, 1]), (7, [0, 2, 4, 6, 8]), (100, [0, 20, 40, 60, 80, 100]), (0.3, [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])],
)
def test_ticks(highest: float, expected: list[float]) -> None:
    assert plot.ticks(highest) == pytest.approx(expected)


@pytest.mark.parametrize("highest", [0.007, 1, 1.3, 9.9, 10, 55, 101, 2600, 99_999])
def test_ticks_reach_the_highest_in_few_steps(highest: float) -> None:
    found = plot.ticks(highest)
    assert found[0] == 0 and found[-1] >= highest > found[-2]
    assert 2 <= len(found) <= 7


def test_plot_is_well_formed_and_has_a_background() -> None:
    tree = ET.fromstring(plot.svg(results()))
    width, height = float(tree.attrib["width"]), float(tree.attrib["height"])
    paper = tree.find(f"{SVG}rect")
    assert paper is not None and paper.attrib["fill"] == plot.PAPER and float(paper.attrib["width"]) == width
    points = [
        tuple(map(float, pair.split(",")))
        for line in tree.iter(f"{SVG}polyline")
        for pair in line.attrib["points"].split()
    ]
    assert len(points) > 10
    assert all(0 <= x <= width and 0 <= y <= height for x, y in points)


def test_plot_of_a_measurement_that_failed_at_once() -> None:
    ET.fromstring(plot.svg({"runs": [], "sizes": [], "remarks": []}))
    assert report.markdown({"runs": [], "sizes": [], "remarks": []})


def test_committed_plot_is_well_formed() -> None:
    ET.fromstring((PROJECT / "docs" / "operate" / "scale.svg").read_text())
