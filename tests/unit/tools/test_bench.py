# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Test tools/bench and tools/lab_hosts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import lab_hosts
from tools.bench import __main__ as bench
from tools.bench import figures, guest_watch, host_state, lab

PROJECT = Path(__file__).resolve().parents[3]
BASELINE = (PROJECT / "tools/bench/baseline.sh").read_text()


def run_of(*tasks: tuple[str, float, float], begin: float = 100.0, end: float = 110.0) -> dict[str, Any]:
    """A measured run with tasks as (name, start, seconds)."""
    return {
        "begin": begin,
        "end": end,
        "seconds": end - begin,
        "tasks": [{"task": name, "start": start, "seconds": seconds, "changed": []} for name, start, seconds in tasks],
    }


# ------------------------------------------------------------------ what to do
@pytest.mark.parametrize(
    ("only", "inventory", "parts"),
    [
        ("", "", "abcde"),
        ("", "inventory/mysite", "cde"),
        ("c", "inventory/mysite", "c"),
        ("d, B", "", "bd"),
        ("a", "", "a"),
    ],
)
def test_measurements_to_make(only: str, inventory: str, parts: str) -> None:
    assert bench.parts_of(only, inventory) == parts


@pytest.mark.parametrize(
    ("only", "inventory", "message"),
    [("f", "", "no f"), ("a,c", "", "add b"), ("b", "inventory/mysite", "Leave INVENTORY out")],
)
def test_invalid_options(only: str, inventory: str, message: str) -> None:
    with pytest.raises(bench.UsageError, match=message):
        bench.parts_of(only, inventory)


def test_exit_code_of_invalid_options() -> None:
    command = [sys.executable, "-m", "tools.bench", "--only", "a,d"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "add b" in done.stderr


def test_order_alternates() -> None:
    assert [bench.order(number, ["a", "b"]) for number in (1, 2, 3)] == [["a", "b"], ["b", "a"], ["a", "b"]]


def test_changing_an_option_leaves_the_others() -> None:
    overrides: dict[str, Any] = {"DEFAULT": {"debug": True}, "api": {"max_limit": 50, "x": 1}}
    assert bench.changed_option("some_overrides", overrides) == {
        "DEFAULT": {"debug": True},
        "api": {"max_limit": 51, "x": 1},
    }
    assert overrides["api"]["max_limit"] == 50
    assert bench.changed_option("some_overrides", None) == {"api": {"max_limit": 1001}}


def test_overrides_that_cannot_be_added_to() -> None:
    with pytest.raises(lab.BenchError, match="some_overrides is not a mapping"):
        bench.changed_option("some_overrides", "{{ somewhere_else }}")


def test_units_that_read_the_changed_files() -> None:
    readers = {letter: bench.units_reading(path, bench.service_maps()) for letter, (_, path) in bench.CHANGED.items()}
    assert readers["d"] == {"nova-api.service", "nova-api-metadata.service"}
    assert {"nova-api.service", "nova-compute.service", "nova-novncproxy.service"} <= readers["e"]
    assert all(unit.startswith("nova-") for unit in readers["e"])


def test_reading_a_directory_means_reading_its_files() -> None:
    service = {"units": [{"name": "x.service", "reads": ["/etc/x"]}, {"name": "y.service"}]}
    assert bench.units_reading("/etc/x/x.conf", [service]) == {"x.service"}
    assert bench.units_reading("/etc/xy", [service]) == set()


def test_units_of_computes_are_not_the_control_plane() -> None:
    found = bench.units_of_computes(bench.service_maps())
    assert {"libvirtd.service", "nova-compute.service", "neutron-ovn-metadata-agent.service"} <= found
    assert not {"nova-api.service", "ovs-vswitchd.service", "mariadb.service"} & found


def test_report_of_a_failed_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "OUTPUT", tmp_path)
    call = bench.Bench("abcd", 3, keep=False)
    call.problem("no machine")
    assert call.report(25) == "PROBLEMS\nno machine"
    call.begin(1)
    call.problem("no guest")
    call.rounds[-1]["c"] = run_of(("x", 101.0, 4.0)) | {"seconds": 10.0}
    texts = call.report(25).split("\n\n")
    assert [text.split()[0] for text in texts] == ["min", "c,", "PROBLEMS"]
    assert texts[-1].endswith("round 1: no guest")
    written = json.loads(call.write().read_text())
    assert written["problems"] == ["no machine", "round 1: no guest"] and written["computer"]["cores"]


# ------------------------------------------------------------------ the deployment by hand
def test_packages_of_both_deployments_differ_where_documented() -> None:
    services = bench.all_service_maps()
    site = {name for service in services if isinstance(service["packages"], list) for name in service["packages"]}
    # Several controllers need more.
    site |= set(yaml.safe_load((PROJECT / "roles/mariadb/vars/main.yml").read_text())["mariadb_packages"])
    by_hand = set(bench.baseline_packages(BASELINE))
    # Named in docs/internals/performance.md.
    assert site - by_hand == {
        "e2fsprogs",
        "ethtool",
        "haproxy",
        "ifupdown",
        "libvirt-daemon-system",
        "nova-doc",
        "python3-libvirt",
        "python3-novaclient",
        "python3-osc-placement",
    }
    assert by_hand - site == {"crudini"}


def test_stages_begin_where_the_last_one_ends() -> None:
    function = re.search(r"^begin=.*?^stage\(\) .*?$", BASELINE, re.MULTILINE | re.DOTALL)
    assert function
    script = f"{function[0]}\nstage one; sleep 0.3; echo '## no stage'; stage first cloud"
    output = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    (one, first), (two, second) = figures.stages(output, 2.0)
    assert (one, two) == ("one", "first cloud")
    assert 0.3 <= first < 1.5 and first + second == pytest.approx(2.0, abs=0.05)


def test_stages_after_the_guest_answered_do_not_count() -> None:
    output = "### 0.0 packages\n### 100.0 first cloud\n### 121.0 server active\n"
    assert figures.stages(output, 120.0) == [("packages", 100.0), ("first cloud", 20.0)]
    assert figures.stages(output, 122.5)[1:] == [("first cloud", 21.0), ("server active", 1.5)]


def test_stage_table_has_medians() -> None:
    runs = [[("packages", 100.0), ("bridge", 1.0)], [("packages", 120.0), ("bridge", 3.0)], [("packages", 110.0)]]
    assert figures.stage_table(runs).splitlines() == ["   110.0 s  packages", "     2.0 s  bridge"]


# ------------------------------------------------------------------ the inventory
def test_lab_and_cloud_have_the_same_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "OUTPUT", tmp_path)
    machine = lab.Machine("bench-x", tmp_path)
    machine.write_inventory()
    content = yaml.safe_load(machine.hosts_file.read_text())["all"]
    assert set(content["children"]) == {"controller", "compute"}
    assert all(set(group["hosts"]) == {lab.MACHINE} for group in content["children"].values())
    host = content["hosts"][lab.MACHINE]
    # All variables of the group lab, evaluated.
    assert set(host) == {"lab_name", "lab_project_directory", *yaml.safe_load(lab_hosts.VARIABLES.read_text())}
    assert not [value for value in host.values() if "{{" in str(value)]
    assert host["lab_id"] == machine.identifier
    assert host["ansible_host"].endswith(".10") and host["ovn_chassis_bridge_address"] == "198.18.0.10/24"
    assert f"/{machine.identifier}/machines/{lab.MACHINE}/known_hosts" in host["ansible_ssh_common_args"]


def test_secrets_of_an_earlier_machine_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "OUTPUT", tmp_path)
    machine = lab.Machine("bench-x", tmp_path)
    secrets = machine.directory / "group_vars" / "all" / "secrets.yml"
    secrets.parent.mkdir(parents=True)
    secrets.touch()
    machine.write_inventory()
    assert not secrets.exists() and machine.hosts_file.exists()


# ------------------------------------------------------------------ a measured playbook
PLAYBOOK = """
- name: First
  hosts: all
  gather_facts: false
  tasks:
    - name: Wait on {{ inventory_hostname }}
      ansible.builtin.command: sleep 0.4
    - name: Do nothing
      ansible.builtin.debug:
        msg: x
    - name: Change two
      ansible.builtin.debug:
        msg: x
      changed_when: inventory_hostname != 'two'
"""


def test_a_run_records_times_and_changes_of_its_tasks(tmp_path: Path) -> None:
    inventory = "all:\n  hosts:\n    one: {ansible_connection: local}\n    two: {ansible_connection: local}\n"
    (tmp_path / "hosts.yml").write_text(inventory)
    (tmp_path / "site.yml").write_text(PLAYBOOK)
    times = tmp_path / "times.json"
    before = time.monotonic()
    process = lab.start_playbook(
        tmp_path / "log",
        ["-i", str(tmp_path / "hosts.yml"), str(tmp_path / "site.yml")],
        ANSIBLE_CALLBACK_PLUGINS=f"{PROJECT / 'plugins/callback'}:{PROJECT / 'tools/bench/callback'}",
        ANSIBLE_CALLBACKS_ENABLED="task_times",
        KILONOVA_TASK_TIMES=str(times),
    )
    assert process.wait() == 0, (tmp_path / "log").read_text()
    run = lab.read_json(times)
    assert [task["task"] for task in run["tasks"]][1:] == ["Do nothing", "Change two"]
    first = run["tasks"][0]
    assert before < first["start"] < time.monotonic() and first["seconds"] >= 0.4 and first["play"] == "First"
    assert run["tasks"][1]["start"] == pytest.approx(first["start"] + first["seconds"], abs=0.01)
    assert [sorted(task["changed"]) for task in run["tasks"]] == [["one", "two"], [], ["one"]]
    assert [run["hosts"][host]["changed"] for host in ("one", "two")] == [2, 1]
    assert figures.changes(run)[1:] == ["Change two (one)"]


# ------------------------------------------------------------------ figures
ROUNDS: list[dict[str, Any]] = [
    {
        "a": {"seconds": 200.0},
        "b": {"seconds": 300.0, "whole": 360.0},
        "c": {"seconds": 30.0},
        "memory": {"kib": 2**21, "control_plane_kib": 2**20},
    },
    {
        "a": {"seconds": 250.0},
        "b": {"seconds": 250.0, "whole": 310.0},
        "c": {"seconds": 20.0},
        "memory": {"kib": 2**21, "control_plane_kib": 2**20},
    },
    {"a": {"seconds": 220.0}, "b": {"seconds": 440.0, "whole": 500.0}, "c": {"seconds": 22.0}, "d": {"seconds": 33.0}},
]


def test_ratios_compare_within_a_round() -> None:
    found = figures.ratios(ROUNDS)
    assert found["b/a"] == {"min": 1.0, "median": 1.5, "max": 2.0}
    assert found["c/b"] == pytest.approx({"min": 0.05, "median": 0.08, "max": 0.1})
    assert found["d/c"] == {"min": 1.5, "median": 1.5, "max": 1.5}
    assert figures.ratios(ROUNDS[:2])["d/c"] is None


def test_table_shows_the_measurements() -> None:
    lines = figures.table(ROUNDS).splitlines()
    assert lines[1].split()[:4] == ["a,", "s", "200.0", "220.0"]
    names = ["a,", "b,", "b", "c,", "d,", "b/a", "c/b", "d/c", "memory,GiB", "all,"]
    assert [line.split()[0] for line in lines[1:]] == names
    assert lines[3].split()[:6] == ["b", "end,", "s", "310.0", "360.0", "500.0"]
    assert lines[4].split()[2:7] == ["20.0", "22.0", "30.0", "<=", "12.0"]
    assert lines[-2].split()[:6] == ["memory,GiB", "1.00", "1.00", "1.00", "<=", "2.50"]
    assert lines[-1].split()[:5] == ["all,", "GiB", "2.00", "2.00", "2.00"]
    assert len(figures.table([{"c": {"seconds": 1.0}}]).splitlines()) == 2


def test_profile_ends_where_the_measurement_does() -> None:
    run = run_of(("x", 101.0, 4.0), ("y", 105.0, 2.0), ("x", 107.0, 5.0), ("late", 112.0, 3.0))
    assert figures.profile(run) == {figures.STARTING: (1.0, 1), "x": (7.0, 2), "y": (2.0, 1)}


def test_profile_has_the_time_after_the_last_task() -> None:
    assert figures.profile(run_of(("x", 101.0, 4.0)))[figures.ENDING] == (5.0, 1)
    assert figures.profile(run_of()) == {figures.STARTING: (10.0, 1)}


def test_middle_profile_counts_a_missing_task_as_zero() -> None:
    runs = [run_of(("x", 100.0, 2.0), ("y", 102.0, 8.0)), run_of(("x", 100.0, 10.0)), run_of(("x", 100.0, 10.0))]
    assert figures.middle_profile(runs)[0] == ("x", 10.0, 1)
    assert dict((name, seconds) for name, seconds, _ in figures.middle_profile(runs))["y"] == 0.0


def test_profile_table_sums_the_omitted_tasks() -> None:
    entries = [("b", 6.0, 1), ("c", 2.0, 2), ("a", 1.0, 1), ("d", 1.0, 1)]
    assert figures.profile_table(entries, rows=2).splitlines() == [
        "     6.0 s  60.0%  b",
        "     2.0 s  20.0%  c (x2)",
        "     2.0 s  20.0%  the other 2",
        "    10.0 s 100.0%  in all",
    ]


def test_restarted_units() -> None:
    before = {"same.service": "1", "changed.service": "2", "gone.service": "3"}
    assert figures.restarted(before, {"same.service": "1", "changed.service": "9", "new.service": "4"}) == [
        "changed.service",
        "gone.service",
    ]


# ------------------------------------------------------------------ on the host
def test_the_address_of_the_guest_comes_from_its_port() -> None:
    def port(owner: str, cidrs: str) -> list[Any]:
        return [["map", [["neutron:cidrs", cidrs], ["neutron:device_owner", owner]]]]

    ports = [port("network:distributed", "192.168.1.2/24"), [["map", []]], port("compute:nova", "")]
    assert guest_watch.guest_address(json.dumps({"data": ports})) == ""
    ports.append(port("compute:nova", "192.168.1.77/24 fd00::7/64"))
    assert guest_watch.guest_address(json.dumps({"data": ports})) == "192.168.1.77"
    assert guest_watch.guest_address("") == ""


def test_running_units() -> None:
    text = (
        "Id=a.service\nActiveState=active\nInvocationID=11\n\nId=b.service\nActiveState=inactive\nInvocationID=22\n\n"
        "Id=user@0.service\nActiveState=active\nInvocationID=33\n\nId=c.socket\nInvocationID=44\nActiveState=active\n"
    )
    assert host_state.parse_units(text) == {"a.service": "11", "c.socket": "44"}


def test_memory_of_a_process() -> None:
    rollup = "Rss:  900 kB\nPss:  100 kB\nPss_Anon:  90 kB\nSwapPss:  7 kB\nSwap:  50 kB\n"
    assert host_state.kibibytes(rollup) == 107


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/nova-api.service\n", "nova-api.service"),
        ("12:pids:/x/other.service\n1:name=systemd:/m/payload/system.slice/mariadb.service\n", "mariadb.service"),
        ("0::/system.slice/system-x.slice/x@1.service/sub\n", "x@1.service"),
        ("0::/\n", "others"),
    ],
)
def test_unit_of_a_process(cgroup: str, unit: str) -> None:
    assert host_state.unit_of(cgroup) == unit


def test_processes_of_the_query_do_not_count() -> None:
    # systemd, the ssh server, its process for the connection, and its command
    parents = {50: 40, 40: 30, 30: 20, 20: 1}
    assert host_state.asking(lambda pid: f"{pid} (a) name) S {parents[pid]} 1", 50) == {50, 40, 30}
    assert host_state.asking(lambda pid: f"{pid} (x) S 1 1", 50) == {50}


def test_steady_memory() -> None:
    assert not host_state.steady([1000, 1000])
    assert not host_state.steady([1000, 1000, 1011])
    assert host_state.steady([500, 1000, 1005, 1010])


def test_memory_of_this_computer() -> None:
    # A process outside of the parents of the query.
    held = "x = bytearray(64 << 20); print(flush=True); input()"
    command = [sys.executable, "-c", held]
    ask = [sys.executable, str(PROJECT / "tools/bench/host_state.py"), "memory", "0"]
    without = json.loads(subprocess.run(ask, capture_output=True, text=True, check=True).stdout)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        size = host_state.kibibytes(Path("/proc", str(process.pid), "smaps_rollup").read_text())
        left_out = host_state.asking(lambda pid: Path("/proc", str(pid), "stat").read_text(), os.getpid())
        taken = host_state.take(left_out)
        process.stdin.close()
    assert size >= 64 << 10
    assert sum(taken["cloud"].values()) >= size
    assert os.getpid() in left_out and without["steady"] is False and len(without["samples"]) == 1


def test_idle_share_of_the_processors() -> None:
    assert lab.cpu_times("cpu  10 1 5 80 4 0 0 0 0 0\ncpu0 1 1 1 1") == (84, 100)
