# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Machines and clouds of the benchmark, and commands on them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plugins.filter.lab import lab_id
from tools.lab_hosts import site_inventory

PROJECT = Path(__file__).resolve().parents[2]
TOOL = Path("tools/bench")
OUTPUT = PROJECT / ".cache" / "bench"
MACHINE = "nova1"
LABS = Path("/var/lib/kilonova/lab")
# Seconds until the guest answers, from a bare machine.
GUEST_LIMIT = 3600
# Seconds until the guest answers, after all commands.
LAST_WAIT = 300
QUIET_SHARE = 0.25
QUIET_LIMIT = 60
MEMORY_LIMIT = 180
LOG_LINES = 40

# For the playbooks that create and remove the machine.
LAB = """\
# Written by tools/bench.
all:
  children:
    lab:
      vars:
        lab_name: {name}
        lab_project_directory: {project}
      hosts:
        {machine}:
"""


class BenchError(Exception):
    """A measurement that failed, with the reason."""


def tail(log: Path) -> str:
    """Return the end of a log as text for a message."""
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join([f"The last lines of {log}:", *lines[-LOG_LINES:]])


# ------------------------------------------------------------------ Ansible
def environment(**more: str) -> dict[str, str]:
    """Return the environment for Ansible: settings of this project, and output without colours."""
    plain = {name: value for name, value in os.environ.items() if name not in ("ANSIBLE_FORCE_COLOR", "FORCE_COLOR")}
    return plain | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"} | more


def ansible(tool: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "ansible", tool, *arguments]


def start_playbook(log: Path, arguments: Sequence[str], **more: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            ansible("playbook", *arguments),
            cwd=PROJECT,
            env=environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def playbook(log: Path, *arguments: str) -> None:
    """Run a playbook without measuring it."""
    with ended(start_playbook(log, arguments)) as process:
        if process.wait():
            raise BenchError(f"ansible-playbook {shlex.join(arguments)} failed. {tail(log)}")


@contextmanager
def ended(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """End a process on leaving the context."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


class Cloud:
    """Hosts of an inventory, on which site.yml is measured."""

    def __init__(self, inventory: Sequence[str], arguments: Sequence[str] = ()) -> None:
        self.inventory = [part for path in inventory for part in ("-i", path)]
        self.arguments = list(arguments)

    def site(self, log: Path, *arguments: str, watch: Watch | None = None) -> dict[str, Any]:
        """Measure site.yml, to its end or until the guest answers."""
        times = log.with_suffix(".tasks.json")
        begin = time.monotonic()
        process = start_playbook(
            log,
            [*self.inventory, *self.arguments, *arguments, "site.yml"],
            ANSIBLE_CALLBACK_PLUGINS=f"{PROJECT / 'plugins/callback'}:{PROJECT / TOOL / 'callback'}",
            ANSIBLE_CALLBACKS_ENABLED="task_times",
            KILONOVA_TASK_TIMES=str(times),
        )
        with ended(process):
            code = process.wait()
        whole = time.monotonic()
        if code or not times.exists():
            raise BenchError(f"site.yml failed with exit code {code}. {tail(log)}")
        end = watch.answered() if watch else whole
        return {"begin": begin, "end": end, "seconds": end - begin, "whole": whole - begin, **read_json(times)}

    def hosts(self, group: str) -> list[str]:
        return list(self.listing().get(group, {}).get("hosts", []))

    def variables(self, host: str) -> dict[str, Any]:
        return dict(self.listing()["_meta"]["hostvars"].get(host, {}))

    def listing(self) -> dict[str, Any]:
        done = subprocess.run(
            ansible("inventory", *self.inventory, "--list"),
            cwd=PROJECT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchError(f"The inventory cannot be read: {done.stderr.strip()}")
        return dict(json.loads(done.stdout))

    def state(self, pattern: str, *arguments: str) -> dict[str, dict[str, Any]]:
        """Return the result of host_state.py on each host."""
        script = f"{TOOL}/host_state.py {shlex.join(arguments)} executable=/usr/bin/python3"
        done = subprocess.run(
            ansible("adhoc", *self.inventory, pattern, "-m", "ansible.builtin.script", "-a", script),
            cwd=PROJECT,
            env=environment(ANSIBLE_LOAD_CALLBACK_PLUGINS="1", ANSIBLE_STDOUT_CALLBACK="ansible.posix.json"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchError(f"The hosts' state cannot be read. {done.stdout[-2000:]}{done.stderr[-2000:]}")
        answers = json.loads(done.stdout)["plays"][0]["tasks"][0]["hosts"]
        return {host: json.loads(answer["stdout"]) for host, answer in answers.items()}


def read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


# ------------------------------------------------------------------ a machine
class Watch:
    """A process on a machine that waits until the guest answers ping."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def answered(self) -> float:
        """Return when the guest answered. Raise BenchError if it did not."""
        try:
            said, _ = self.process.communicate(timeout=LAST_WAIT)
        except subprocess.TimeoutExpired:
            raise BenchError(f"The guest did not answer ping within {LAST_WAIT} s after the deployment.") from None
        result = json.loads(said) if said.strip() else {}
        if not result.get("answered"):
            raise BenchError(f"The guest did not answer ping: {said.strip() or 'the watcher ended'}")
        return float(result["answered"])


class Machine:
    """A bare lab machine."""

    def __init__(self, name: str, logs: Path) -> None:
        self.logs, self.name = logs, name
        self.identifier = lab_id(str(PROJECT), name)
        self.directory = OUTPUT / "inventory" / name
        self.hosts_file, self.lab_file = self.directory / "hosts.yml", self.directory / "lab.yml"
        self.ssh_config = LABS / self.identifier / "machines" / MACHINE / "ssh_config"

    def write_inventory(self) -> None:
        # Removes secrets of an earlier machine as well.
        shutil.rmtree(self.directory, ignore_errors=True)
        (self.directory / "group_vars").mkdir(parents=True)
        words = {"name": self.name, "project": json.dumps(str(PROJECT)), "machine": MACHINE}
        self.lab_file.write_text(LAB.format(**words))
        (self.directory / "group_vars" / "lab.yml").symlink_to(PROJECT / "inventory/lab/group_vars/lab.yml")
        # Without the group lab, so that site.yml does not look after machines.
        groups: dict[str, Any] = {group: {"hosts": {MACHINE: {}}} for group in ("controller", "compute")}
        self.hosts_file.write_text(site_inventory(groups, self.lab_file))

    def lab_playbook(self, name: str) -> None:
        log = self.logs / f"{self.name}-{name}.log"
        playbook(log, "-i", str(self.lab_file), f"playbooks/{name}.yml")

    def create(self) -> None:
        self.write_inventory()
        # Remove what a killed run left.
        self.lab_playbook("destroy")
        self.lab_playbook("lab-create")

    def destroy(self) -> None:
        self.lab_playbook("destroy")
        shutil.rmtree(self.directory, ignore_errors=True)

    def ssh(self, *command: str) -> list[str]:
        return ["ssh", "-F", str(self.ssh_config), "-o", "BatchMode=yes", MACHINE, *command]

    def put(self, source: Path, target: str) -> None:
        with source.open("rb") as stream:
            subprocess.run(self.ssh(f"cat >{shlex.quote(target)}"), stdin=stream, check=True)

    def say(self, *command: str) -> str:
        done = subprocess.run(self.ssh(*command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        """Watch for the guest. Returns once the watcher is running."""
        with (PROJECT / TOOL / "guest_watch.py").open() as program:
            process = subprocess.Popen(
                self.ssh("python3", "-", str(GUEST_LIMIT)), stdin=program, stdout=subprocess.PIPE, text=True
            )
        with ended(process):
            line = process.stdout.readline() if process.stdout else ""
            if "watching" not in line:
                raise BenchError(f"No watcher could be started on {self.name}: {line}")
            yield Watch(process)

    def by_hand(self, log: Path, image: Path) -> dict[str, Any]:
        """Measure the deployment with the shell script, until the guest answers."""
        script = "/root/baseline.sh"
        self.put(image, "/root/guest.qcow2")
        self.put(PROJECT / TOOL / "baseline.sh", script)
        with self.watch() as watch, log.open("wb") as output:
            quiet = wait_for_quiet()
            begin = time.monotonic()
            process = subprocess.Popen(
                self.ssh("bash", script, "/root/guest.qcow2"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            with ended(process):
                code = process.wait()
            if code:
                raise BenchError(f"The deployment by hand failed with exit code {code}. {tail(log)}")
            seconds = watch.answered() - begin
        return {"seconds": seconds, "busy_before": quiet, "output": log.read_text(errors="replace")}


@contextmanager
def machine(name: str, logs: Path, keep: bool) -> Iterator[Machine]:
    """Create a bare machine, and remove it afterwards."""
    made = Machine(name, logs)
    try:
        made.create()
        yield made
    except BenchError:
        if keep:
            print(f"Left for inspection: ssh -F {made.ssh_config} {MACHINE}; the next run removes it.", flush=True)
            raise
        made.destroy()
        raise
    except BaseException:
        made.destroy()
        raise
    made.destroy()


# ------------------------------------------------------------------ the computer
def cpu_times(text: str) -> tuple[int, int]:
    """Return idle and total processor time in ticks, from /proc/stat."""
    numbers = [int(word) for word in text.partition("\n")[0].split()[1:9]]
    return numbers[3] + numbers[4], sum(numbers)


def wait_for_quiet() -> float:
    """Flush buffers and wait until the processors are mostly idle. Return how busy they were."""
    os.sync()
    deadline = time.monotonic() + QUIET_LIMIT
    while True:
        idle, total = cpu_times(Path("/proc/stat").read_text())
        time.sleep(2)
        idle_now, total_now = cpu_times(Path("/proc/stat").read_text())
        busy = 1 - (idle_now - idle) / max(1, total_now - total)
        if busy <= QUIET_SHARE or time.monotonic() >= deadline:
            return round(busy, 3)


def describe_computer() -> dict[str, Any]:
    memory = Path("/proc/meminfo").read_text().split()[1]
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    return {
        "cores": os.cpu_count(),
        "processor": models[0] if models else "",
        "memory_gib": round(int(memory) / 2**20, 1),
        "kernel": os.uname().release,
        "commit": commit.stdout.strip(),
    }
