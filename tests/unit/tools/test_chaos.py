# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Test tools/chaos: moments, signals, and what counts as a success."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.site_tasks import listed
from tools.chaos import campaign, moments
from tools.chaos import lab as labs
from tools.chaos import run as runs
from tools.chaos import strike as strikes

PROJECT = Path(__file__).resolve().parents[3]
LISTING = """\

playbook: site.yml

  play #1 (lab): Create lab machines\tTAGS: []
    tasks:
      lab : Validating arguments against arg spec 'main' - A machine\tTAGS: [always]
      lab : Set the state of the machine (it takes a minute)\tTAGS: []

  play #2 (controller): Deploy\tTAGS: []
    tasks:
      service : Configure {{ service_map.title }}\tTAGS: [mariadb]
      service : Start {{ service_map.title }}\tTAGS: [mariadb]
      mariadb : Upgrade database schemas\tTAGS: [mariadb]
      service : Configure {{ service_map.title }}\tTAGS: [rabbitmq]
      service : Start {{ service_map.title }}\tTAGS: [rabbitmq]
      Last one\tTAGS: [always]
"""
TASKS = moments.parse_tasks(LISTING)


def test_tasks_come_in_order_with_every_repetition() -> None:
    assert len(TASKS) == 8
    assert [TASKS.index("service : Configure {{ service_map.title }}"), TASKS[6]] == [
        2,
        "service : Start {{ service_map.title }}",
    ]


@pytest.fixture(scope="module")
def site_tasks() -> list[str]:
    return moments.parse_tasks(listed("inventory/lab").stdout)


def test_known_tasks_exist(site_tasks: list[str]) -> None:
    """A renamed task would silently count as a short one."""
    for start in moments.TASK_SECONDS:
        assert any(task.startswith(start) for task in site_tasks), start
    for start in moments.INSTANT:
        assert any(task.rpartition(" : ")[2].startswith(start) for task in site_tasks), start


def test_molecule_kills_up_to_a_task_that_exists(site_tasks: list[str]) -> None:
    argument = re.search(r"--until=(.+)", (PROJECT / "molecule/default/prepare.yml").read_text())
    assert argument
    assert 20 < len(moments.until(site_tasks, argument[1])) < len(site_tasks)


def test_same_seed_same_moments() -> None:
    assert moments.draw(TASKS, 6, 3, 7) == moments.draw(TASKS, 6, 3, 7)
    assert moments.draw(TASKS, 6, 3, 7) != moments.draw(TASKS, 6, 3, 8)


def test_every_part_of_the_deployment_has_a_kill() -> None:
    kills, lives = 20, moments.draw(TASKS, 20, 5, 1)
    assert [len(life) for life in lives] == [5, 5, 5, 5]
    total = sum(map(moments.weight_of, TASKS))

    def place(moment: moments.Moment) -> float:
        before = sum(map(moments.weight_of, TASKS[: moment.index]))
        share = moment.seconds / moments.seconds_of(moment.task)
        return (before + share * moments.weight_of(moment.task)) / total * kills

    parts = sorted(place(moment) for life in lives for moment in life)
    assert all(number - 0.1 <= part <= number + 1.1 for number, part in enumerate(parts))
    for life in lives:
        assert [moment.index for moment in life] == sorted(moment.index for moment in life)
    assert {moment.way for life in lives for moment in life} == set(moments.WAYS)


def test_no_kill_in_what_takes_no_time() -> None:
    assert not any(moments.WITHOUT_MOMENT.search(one.task) for life in moments.draw(TASKS, 50, 50, 3) for one in life)


def test_kills_up_to_a_task() -> None:
    short = moments.until(TASKS, "database schemas")
    assert short == TASKS[:5]
    with pytest.raises(SystemExit, match="no task name"):
        moments.until(TASKS, "no such task")


def test_watch_knows_the_task_by_order_and_name() -> None:
    watch = runs.Watch(TASKS)
    lines = (
        "PLAY [Create lab machines] ****",
        "TASK [lab : Set the state of the machine (it takes a minute)] *****",
        "changed: [nova1] => (item=x)",
        "PLAY [Deploy] *****",
        "TASK [service : Configure MariaDB] *****",
        "TASK [Something included that is not listed] ***",
        "TASK [service : Start MariaDB] *****",
    )
    seen = []
    for second, line in enumerate(lines):
        watch.see(line, float(second))
        seen.append(watch.position)
    assert seen == [-1, 1, 1, 1, 2, 2, 3]
    assert watch.since == 6.0
    assert watch.where == "Deploy: service : Start MariaDB"
    # The second task of that name, although those between did not run.
    watch.see("TASK [service : Start RabbitMQ] ****", 7.0)
    assert watch.position == 6


def test_recap() -> None:
    output = (
        "nova1 : ok=1 changed=1 unreachable=0 failed=0\nPLAY RECAP ****\n"
        "localhost                  : ok=3    changed=0    unreachable=0    failed=0    skipped=1\n"
        "nova1                      : ok=93   changed=2    unreachable=1    failed=0    skipped=1\n\n"
        "HOSTS THAT FAILED ****\nnova1: unreachable\n"
    )
    recap = runs.parse_recap(output)
    assert recap["nova1"] == {"ok": 93, "changed": 2, "unreachable": 1, "failed": 0, "skipped": 1}
    assert (runs.total_of(recap, "changed"), runs.total_of(recap, "unreachable")) == (2, 1)
    assert runs.parse_recap("TASK [x]\n") == {}


def test_descendants() -> None:
    assert sorted(strikes.descendants({2: 1, 3: 2, 4: 3, 5: 1, 6: 99}, 2)) == [3, 4]


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ("1:name=systemd:/kilonova-lab-1a2b-nova1/system.slice/ssh.service\n", True),
        ("0::/machine/system.slice/sshd@3-10.0.0.1:22.service\n", True),
        ("0::/machine/user.slice/user-0.slice/session-4.scope\n", True),
        ("0::/machine/system.slice/nova-api.service\n", False),
        ("0::/machine/system.slice/session-manager.service\n", False),
    ],
)
def test_what_belongs_to_a_login(cgroup: str, expected: bool) -> None:
    assert labs.of_a_session(cgroup) is expected


def inventory(path: Path, **hosts: dict[str, None]) -> Path:
    groups = {name: {"hosts": entries} for name, entries in hosts.items()}
    if "lab" in groups:
        groups["lab"]["vars"] = {"lab_name": "x"}  # type: ignore[dict-item]
    path.mkdir()
    (path / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))
    return path


def test_only_a_lab_is_killed(tmp_path: Path) -> None:
    lab = labs.Lab.of(inventory(tmp_path / "lab", lab={"a1": None}, controller={"a1": None}))
    assert (lab.name, lab.machines) == ("x", ["a1"])
    assert lab.roots[0].parts[-3:] == ("machines", "a1", "root")
    with pytest.raises(SystemExit, match="not lab machines"):
        labs.Lab.of(inventory(tmp_path / "site", controller={"c1": None}))
    with pytest.raises(SystemExit, match="not lab machines"):
        labs.Lab.of(inventory(tmp_path / "mixed", lab={"a1": None}, controller={"a1": None}, compute={"real": None}))


class OneLab(labs.Lab):
    """A lab in the directory of the test."""

    @property
    def directory(self) -> Path:
        return self.inventory / "lab"


def test_keys_and_secrets_are_watched_once_they_exist(tmp_path: Path) -> None:
    lab = OneLab(tmp_path, "x", ["a1"])
    keys = lab.roots[0] / "etc/keystone/fernet-keys"
    keys.mkdir(parents=True)
    secrets = tmp_path / "group_vars/all/secrets.yml"
    secrets.parent.mkdir(parents=True)
    steady = labs.Steady(lab)
    (keys / "0.tmp").write_text("ha")
    certificates = lab.roots[0] / "etc/pki/libvirt/private"
    certificates.mkdir(parents=True)
    (certificates / ".ansible_tmp1serverkey.pem").write_text("ha")
    assert steady.look() == [] and steady.first == {}
    (keys / "0").write_text("key 0")
    (certificates / "serverkey.pem").write_text("key")
    secrets.write_text("a: b\n")
    assert steady.look() == []
    (keys / "1").write_text("key 1")
    assert steady.look() == []
    (keys / "0").write_text("rotated")
    (certificates / "serverkey.pem").write_text("another")
    (keys / "1").unlink()
    secrets.write_text("a: c\n")
    assert sorted(steady.look()) == [
        "a1:/etc/keystone/fernet-keys/0 changed",
        "a1:/etc/keystone/fernet-keys/1 is gone",
        "a1:/etc/pki/libvirt/private/serverkey.pem changed",
        "group_vars/all/secrets.yml changed",
    ]


# Stands for ansible-playbook: prints task names and starts a worker in another session.
STAND_IN = """\
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("WORKER", worker.pid, flush=True)
print("PLAY [Deploy] ***", flush=True)
for name in sys.argv[1:]:
    print(f"TASK [{name}] ***", flush=True)
    time.sleep(0.2)
if "stay" in sys.argv:
    time.sleep(60)
worker.kill()
"""


class StandIn(runs.Run):
    """A run of the script above."""

    def __init__(self, log: Path, *names: str) -> None:
        super().__init__(log, TASKS, [sys.executable, "-c", STAND_IN, *names])

    @property
    def worker(self) -> int:
        found = re.search(r"WORKER (\d+)", self.output)
        assert found
        return int(found[1])


def alive(pid: int) -> bool:
    """Return whether a process runs and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(condition: object, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(("way", "worker_lives"), [("SIGKILL", True), ("SIGTERM", True), (moments.CUT, False)])
def test_strike(tmp_path: Path, way: str, worker_lives: bool) -> None:
    """A signal does not reach the workers; a cut does."""
    lab = OneLab(tmp_path, "x", [])
    run = StandIn(tmp_path / "log", "service : Configure MariaDB", "service : Start MariaDB", "stay")
    assert run.reaches(moments.Moment(3, TASKS[3], 0.1, way))
    worker = run.worker
    try:
        assert run.watch.where == "Deploy: service : Start MariaDB"
        strikes.strike(run, way, lab)
        assert run.process.returncode == -strikes.SIGNALS.get(way, signal.SIGKILL)
        assert run.ended
        if worker_lives:
            assert alive(worker)
        else:
            assert wait_until(lambda: not alive(worker))
    finally:
        strikes.kill([worker])


def test_moment_after_the_end_of_its_task_is_at_its_end(tmp_path: Path) -> None:
    run = StandIn(tmp_path / "log", "service : Configure MariaDB", "service : Start MariaDB", "stay")
    assert run.reaches(moments.Moment(2, TASKS[2], 50.0, "SIGKILL"))
    assert run.watch.position == 3
    strikes.strike(run, moments.CUT, OneLab(tmp_path, "x", []))


def test_run_that_ends_before_its_moment(tmp_path: Path) -> None:
    run = StandIn(tmp_path / "log", "service : Configure MariaDB")
    assert not run.reaches(moments.Moment(4, TASKS[4], 0.0, "SIGKILL"))
    assert run.finish() == 0
    assert run.last_lines().endswith("TASK [service : Configure MariaDB] ***")


def test_connections_of_the_lab_are_found(tmp_path: Path) -> None:
    lab = OneLab(tmp_path, "x", [])
    name = f"ssh: {lab.directory}/connections/10.0.0.1-22-root [mux]"
    with subprocess.Popen([name, "-c", "input()"], executable=sys.executable, stdin=subprocess.PIPE) as process:
        try:
            assert wait_until(lambda: list(lab.connections()) == [process.pid])
            assert list(OneLab(tmp_path / "other", "y", []).connections()) == []
        finally:
            process.communicate(b"\n")
    assert os.getpid() not in lab.connections()


def new_chaos(tmp_path: Path, keep_going: bool) -> campaign.Chaos:
    return campaign.Chaos(OneLab(tmp_path, "x", []), TASKS, 1, keep_going, tmp_path / "logs")


def test_finding_stops_without_keep_going(tmp_path: Path) -> None:
    going = new_chaos(tmp_path, keep_going=True)
    going.check(1, "one more run changes nothing", False, "changed=2")
    assert going.failed == 1 and going.findings == ["life 1: one more run changes nothing: changed=2"]
    with pytest.raises(campaign.Finding):
        new_chaos(tmp_path, keep_going=False).check(1, "x", False, "y")


def test_kill_is_judged_by_the_run_after_it(tmp_path: Path) -> None:
    work = new_chaos(tmp_path, keep_going=True)
    work.kills = [
        campaign.Kill(1, 1, "", "SIGKILL", 12.4, "Deploy: a"),
        campaign.Kill(2, 1, "", "cut", 60.0, "Deploy: b"),
    ]
    work.kills[0].next, work.kills[0].passed = "went on", True
    work.settle("failed", False)
    assert [row.next for row in work.kills] == ["went on", "failed"]
    assert work.failed == 1
    assert work.table().splitlines()[1:] == [
        " 1    1     12  SIGKILL  went on    Deploy: a",
        " 2    1     60  cut      failed     Deploy: b   <-- FAILED",
    ]
    assert (work.record()["passed"], work.record()["failed"]) == (1, 1)
