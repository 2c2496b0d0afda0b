# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Measure what grows with the number of computes: real ones in a lab, then simulated ones.

Real computes are lab machines, added with site.yml --limit as an operator adds hosts. Timed: the first deployment, the
run that adds the last of 2, 4 and 8, and a run that changes nothing at each of these sizes, which must be one.
Simulated computes are nova-compute services with Nova's fake driver, all on one of the lab's computes, so that the
control plane can be seen with more computes than fit on this computer. They come between the first and the second real
compute, while there is memory for them, and are removed again.

Results go to .cache/bench-scale: one JSON file per run, the plot, and the output of everything that was run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from plugins.filter.lab import lab_id
from tools.lab_hosts import site_inventory
from tools.scale import report

PROJECT = Path(__file__).resolve().parent.parent
DIRECTORY = PROJECT / ".cache" / "bench-scale"
INVENTORY = DIRECTORY / "inventory"
# The same hosts as a site's inventory has them: site.yml then does not look after machines.
SITE_INVENTORY = DIRECTORY / "site"
LAB_NAME = "bench-scale"
LABS = Path("/var/lib/kilonova/lab")
CONTROLLER = "ctl1"
PREFIX = "fake"
# On the machines, gone with their next boot.
REMOTE = "/run/kilonova-scale"
FAKE_DIRECTORY = "/var/lib/nova/fake-computes"
UNIT = "kilonova-fake-computes"

# What a machine takes at most, guests of verify included, and what the computer keeps for everything else.
COMPUTE_MIB, COMPUTE_DISK_MIB = 1400, 3500
CONTROLLER_MIB, CONTROLLER_DISK_MIB = 4500, 6000
SIMULATED_MIB = 60
RESERVE_MIB, RESERVE_DISK_MIB = 1500, 5000
# Nova spreads the beginning of its periodic tasks over this time (periodic_fuzzy_delay).
SETTLE_SECONDS = 60


class Failed(Exception):
    """A step did not do what the next ones need."""


def sizes(text: str) -> list[int]:
    """1,2,4,8 as numbers that grow. Raises argparse's error."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1,2,4,8") from None
    if not numbers or numbers[0] < 1 or numbers != sorted(set(numbers)):
        raise argparse.ArgumentTypeError(f"{text!r} must grow, and begin with at least 1")
    return numbers


def computes_up_to(count: int) -> list[str]:
    return [f"cmp{number}" for number in range(1, count + 1)]


def inventory(project: Path, computes: Sequence[str]) -> dict[str, Any]:
    """The content of hosts.yml. A machine's address is its position, so new ones come last."""
    lab = {"lab_name": LAB_NAME, "lab_project_directory": str(project)}
    return {
        "all": {
            "children": {
                "lab": {"vars": lab, "hosts": dict.fromkeys([CONTROLLER, *computes])},
                "controller": {"hosts": {CONTROLLER: None}},
                "compute": {"hosts": dict.fromkeys(computes)},
            }
        }
    }


def growth_steps(present: int, wanted: int) -> list[tuple[str, list[str]]]:
    """The runs from one size to a larger one: those in between in one, the last compute in one of its own."""
    new = computes_up_to(wanted)[present:]
    steps = [("fill", new[:-1]), ("add", new[-1:])]
    return [(kind, hosts) for kind, hosts in steps if hosts]


def memory_available_mib(meminfo: str) -> int:
    fields = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    return int(fields["MemAvailable"].split()[0]) // 1024


def shortage(memory_mib: int, disk_mib: int, needed_mib: int, needed_disk_mib: int) -> str:
    """Why the next step does not fit on this computer; empty when it does."""
    if memory_mib < needed_mib + RESERVE_MIB:
        return f"{memory_mib} MiB of memory are available, {needed_mib} MiB and {RESERVE_MIB} MiB in reserve are needed"
    if disk_mib < needed_disk_mib + RESERVE_DISK_MIB:
        return (
            f"{disk_mib} MiB of disk are free, {needed_disk_mib} MiB and {RESERVE_DISK_MIB} MiB in reserve are needed"
        )
    return ""


def changed_hosts(record: dict[str, Any]) -> dict[str, list[str]]:
    """The tasks that changed something, by host, of a run that should have changed nothing."""
    return {name: host["changed_tasks"] for name, host in record["hosts"].items() if host["changed"]}


class Bench:
    """One measurement: its results so far, and the files they go to."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.lab = lab_id(str(PROJECT), LAB_NAME)
        self.stamp = time.strftime("%Y%m%dT%H%M%S")
        self.logs = DIRECTORY / self.stamp
        self.begun = time.monotonic()
        self.present = 0
        self.failed = False
        self.results: dict[str, Any] = {
            "begun": self.stamp,
            "commit": self.commit(),
            "computer": {
                "cpus": os.cpu_count(),
                "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
                "kernel": platform.release(),
            },
            "runs": [],
            "sizes": [],
            "remarks": [],
        }

    @staticmethod
    def commit() -> str:
        command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        return found.stdout.strip() or "unknown"

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.begun:7.0f} s  {text}", flush=True)

    def remark(self, text: str) -> None:
        self.results["remarks"].append(text)
        self.say(text)

    def save(self) -> None:
        (DIRECTORY / f"{self.stamp}.json").write_text(json.dumps(self.results, indent=1) + "\n")

    # ------------------------------------------------------------ what is run
    def write_inventory(self, computes: Sequence[str]) -> None:
        (INVENTORY / "group_vars").mkdir(parents=True, exist_ok=True)
        shared = INVENTORY / "group_vars" / "lab.yml"
        if not shared.is_symlink():
            shared.symlink_to(PROJECT / "inventory" / "lab" / "group_vars" / "lab.yml")
        content = yaml.safe_dump(inventory(PROJECT, computes), sort_keys=False)
        (INVENTORY / "hosts.yml").write_text(content.replace(": null", ":"))

    def write_site_inventory(self) -> None:
        """The hosts of the lab's inventory, and its passwords."""
        (SITE_INVENTORY / "group_vars").mkdir(parents=True, exist_ok=True)
        groups = inventory(PROJECT, computes_up_to(self.present))["all"]["children"]
        del groups["lab"]
        (SITE_INVENTORY / "hosts.yml").write_text(site_inventory(groups, INVENTORY))
        passwords = SITE_INVENTORY / "group_vars" / "all"
        if not passwords.is_symlink():
            passwords.symlink_to(INVENTORY / "group_vars" / "all")

    def playbook(self, name: str, playbook: str, *arguments: str, hosts: Path = INVENTORY) -> dict[str, Any]:
        """Run a playbook. Returns what the callback recorded, with the seconds of the whole run. Raises Failed."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log, times = self.logs / f"{name}.log", self.logs / f"{name}.json"
        environment = os.environ | {
            "ANSIBLE_CALLBACKS_ENABLED": "host_times",
            "ANSIBLE_STDOUT_CALLBACK": "default",
            "ANSIBLE_NOCOLOR": "1",
            "KILONOVA_HOST_TIMES": str(times),
        }
        command = [sys.executable, "-m", "ansible", "playbook", "-i", str(hosts), playbook, *arguments]
        start = time.monotonic()
        with log.open("w") as output:
            code = subprocess.run(
                command,
                cwd=PROJECT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=self.options.timeout,
            ).returncode
        seconds = round(time.monotonic() - start, 1)
        if code:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
            raise Failed(f"{playbook} ended with {code} ({name}); the end of {log}:\n{tail}")
        record: dict[str, Any] = json.loads(times.read_text())
        return record | {"seconds": seconds}

    def ssh(self, host: str, command: str, content: str = "", timeout: float = 1800) -> str:
        """The output of a command on a machine of the lab. Raises Failed."""
        done = subprocess.run(
            ["ssh", "-F", str(LABS / self.lab / "ssh_config"), host, command],
            input=content,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if done.returncode:
            raise Failed(f"{host}: {command} ended with {done.returncode}:\n{(done.stderr or done.stdout)[-3000:]}")
        return done.stdout

    def copy(self, host: str, name: str) -> None:
        content = (PROJECT / "tools" / "scale" / name).read_text()
        self.ssh(host, f"install -d {REMOTE} && cat > {REMOTE}/{name} && chmod 755 {REMOTE}/{name}", content)

    def probe(self, host: str, *arguments: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.ssh(host, f"{REMOTE}/probe.py {' '.join(arguments)}"))
        return answer

    def measure(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The controller and cmp1, at the same time."""
        seconds = ["--seconds", str(self.options.idle_seconds)]
        with ThreadPoolExecutor() as pool:
            controller = pool.submit(self.probe, CONTROLLER, "measure", "--controller", *seconds)
            compute = pool.submit(self.probe, "cmp1", "measure", *seconds)
        return controller.result(), compute.result()

    def fits(self, what: str, needed_mib: int, needed_disk_mib: int = 0) -> bool:
        """Whether the next step has room; says so and records it when not."""
        disk = shutil.disk_usage(LABS if LABS.exists() else "/").free // 2**20
        memory = memory_available_mib(Path("/proc/meminfo").read_text())
        reason = shortage(memory, disk, needed_mib, needed_disk_mib)
        if reason:
            self.remark(f"Stopped before {what}: {reason}.")
        return not reason

    # ------------------------------------------------------------ real computes
    def note_run(self, kind: str, added: Sequence[str], record: dict[str, Any], verify: bool = True) -> None:
        entry = {"kind": kind, "computes": self.present, "added": list(added), "verify": verify} | record
        self.results["runs"].append(entry)
        self.save()
        names = f" ({', '.join(added)})" if added else ""
        self.say(f"{kind}{names}: {record['seconds']:.1f} s with {self.present} computes")

    def first(self, count: int) -> None:
        """Deploy from nothing. Raises Failed, also when there is no room."""
        if not self.fits(
            "the first deployment",
            CONTROLLER_MIB + count * COMPUTE_MIB,
            CONTROLLER_DISK_MIB + count * COMPUTE_DISK_MIB,
        ):
            raise Failed("there is nothing to measure without it")
        for directory in (INVENTORY, SITE_INVENTORY):
            shutil.rmtree(directory, ignore_errors=True)  # New passwords, as for any new cloud.
        self.write_inventory(computes_up_to(count))
        record = self.playbook("first", "site.yml")
        self.present = count
        self.note_run("first", [CONTROLLER, *computes_up_to(count)], record)

    def attach(self) -> bool:
        """Go on with the lab that an earlier measurement kept."""
        hosts = INVENTORY / "hosts.yml"
        if not hosts.exists() or not (LABS / self.lab / "ssh_config").exists():
            return False
        self.present = len(yaml.safe_load(hosts.read_text())["all"]["children"]["compute"]["hosts"])
        self.say(f"The lab is there, with {self.present} computes.")
        return True

    def grow(self, count: int) -> bool:
        """Add computes until there are so many, the last one alone. Returns whether there was room."""
        missing = count - self.present
        if not self.fits(f"compute {count}", missing * COMPUTE_MIB, missing * COMPUTE_DISK_MIB):
            return False
        for kind, new in growth_steps(self.present, count):
            size = self.present + len(new)
            self.write_inventory(computes_up_to(size))
            record = self.playbook(f"{kind}-{size}", "site.yml", "--limit", ",".join(new))
            self.present = size
            self.note_run(kind, new, record)
        return True

    def unchanged(self) -> None:
        """Runs that must change nothing, with and without verify, and without a look at the machines."""
        self.write_site_inventory()
        if any(run["kind"] == "add" for run in self.results["runs"][-1:]):
            # The others have not yet heard the names of hosts that were added with --limit.
            record = self.playbook(f"names-{self.present}", "site.yml", "--tags", "host")
            self.note_run("names", [], record, verify=False)
        for number in range(self.options.rounds):
            for verify in (True, False):
                name = f"unchanged-{self.present}-{'verified' if verify else 'plain'}-{number + 1}"
                skipped = [] if verify else ["--skip-tags", "verify"]
                record = self.playbook(name, "site.yml", *skipped, hosts=SITE_INVENTORY)
                self.note_run("unchanged", [], record, verify)
                for host, tasks in changed_hosts(record).items():
                    self.failed = True
                    self.remark(f"NOT without a change: {name} changed {host}: {'; '.join(tasks)}.")

    def look(self) -> None:
        """The controller, and a compute, with nothing to do."""
        self.copy(CONTROLLER, "probe.py")
        self.copy("cmp1", "probe.py")
        controller, compute = self.measure()
        size = {
            "computes": self.present,
            "simulated": 0,
            "simulation": False,
            "controller": controller,
            "compute": compute,
        }
        size["package_mib"] = int(self.ssh("cmp1", "du -sm /var/cache/apt/archives").split()[0])
        self.results["sizes"].append(size)
        self.save()
        self.say(f"looked at the controller with {self.present} computes")

    # ------------------------------------------------------------ simulated computes
    def simulate(self) -> None:
        """Start more and more simulated computes on cmp1, measure, and remove them all."""
        self.copy(CONTROLLER, "probe.py")
        self.copy("cmp1", "probe.py")
        self.copy("cmp1", "fake_computes.py")
        present, each = 0, float(SIMULATED_MIB)
        try:
            self.measure_simulated(0, {})
            for count in self.options.simulated:
                if not self.fits(f"{count} simulated computes", int((count - present) * each)):
                    break
                each = self.start_simulated(present, count)
                present = count
        finally:
            self.remove_simulated()

    def start_simulated(self, present: int, count: int) -> float:
        """From so many to so many. Returns the MiB that each of them takes. Raises Failed."""
        options = f"--unit {UNIT}-{count} --uid nova --gid nova --collect --property TasksMax=infinity"
        limits = "--property LimitNOFILE=65536 --setenv PYTHONDONTWRITEBYTECODE=1"
        arguments = f"--prefix {PREFIX} --first {present + 1} --last {count} --directory {FAKE_DIRECTORY}"
        self.ssh("cmp1", f"systemd-run {options} {limits} {REMOTE}/fake_computes.py {arguments}")
        names = [f"{PREFIX}-{number:04}" for number in range(1, count + 1)]
        seconds = self.wait_up(count)
        variables = json.dumps({"scale_computes": names})
        mapped = self.playbook(f"map-{count}", "tools/scale/discover.yml", "--extra-vars", variables)
        self.say(f"{count} simulated computes are up after {seconds:.0f} s, and mapped")
        entry = {"new": count - present, "up_seconds": seconds, "map_seconds": mapped["seconds"]}
        size = self.measure_simulated(count, entry)
        if self.options.burst:
            size["burst"] = self.burst()
            self.save()
            self.say(f"{size['burst']['active']} of {self.options.burst} servers after {size['burst']['seconds']} s")
        return float(size["simulation_mib"]) / count

    def wait_up(self, count: int) -> float:
        """Seconds until so many simulated computes are up. Raises Failed, early when their process has ended."""
        seconds = 0.0
        while True:
            up = self.probe(CONTROLLER, "wait-up", "--prefix", PREFIX, "--count", str(count), "--timeout", "120")
            seconds += up["seconds"]
            if up["reached"]:
                return seconds
            running = self.ssh("cmp1", f"systemctl list-units --plain --no-legend {UNIT}-{count}.service")
            if seconds > self.options.timeout or not running:
                log = self.ssh("cmp1", f"journalctl --no-pager --lines 60 --unit {UNIT}-{count}")
                raise Failed(
                    f"only {up['up']} of {count} simulated computes are up, {up['providers']} providers:\n{log}"
                )

    def burst(self) -> dict[str, Any]:
        return self.probe(CONTROLLER, "burst", "--count", str(self.options.burst), "--prefix", PREFIX)

    def measure_simulated(self, count: int, entry: dict[str, Any]) -> dict[str, Any]:
        lists = self.probe(CONTROLLER, "lists")
        time.sleep(SETTLE_SECONDS if count else 0)
        controller, compute = self.measure()
        ours = [mib for unit, mib in compute["memory_mib"].items() if unit.startswith(UNIT)]
        size = {
            "computes": self.present,
            "simulated": count,
            "simulation": True,
            "lists": lists,
            "controller": controller,
            "compute": compute,
            "simulation_mib": round(sum(ours), 1),
        } | entry
        self.results["sizes"].append(size)
        self.save()
        self.say(
            f"measured with {count} simulated computes: {controller['memory_total_mib']:.0f} MiB on the controller"
        )
        return size

    def remove_simulated(self) -> None:
        """Whatever happened before: stop them, take them out of the cloud, and see that nothing of them is left."""
        self.ssh("cmp1", f"systemctl stop '{UNIT}-*'")
        removed = self.probe(CONTROLLER, "remove", "--prefix", PREFIX)
        self.ssh("cmp1", f"rm -rf {FAKE_DIRECTORY} {REMOTE}")
        self.results["removed"] = removed
        self.save()
        left = {what: count for what, count in removed["left"].items() if count}
        if left:
            raise Failed(f"simulated computes are left in the cloud: {left}")
        self.say(f"removed {removed['removed']} simulated computes in {removed['seconds']:.0f} s")

    # ------------------------------------------------------------ the whole
    def destroy(self) -> None:
        """Remove the lab, with every machine that it ever had."""
        if (INVENTORY / "hosts.yml").exists():
            self.playbook("destroy", "playbooks/destroy.yml")

    def run(self) -> None:
        """All parts. Raises Failed."""
        parts = self.options.parts
        wanted = self.options.computes
        if "hosts" in parts or not self.attach():
            self.destroy()
            self.first(wanted[0])
        if "hosts" in parts:
            self.unchanged()
            self.look()
        if "simulation" in parts:
            try:
                self.simulate()
            except (Failed, subprocess.TimeoutExpired) as error:
                self.failed = True  # The other half can still be measured.
                self.remark(f"Failed: {error}")
        if "hosts" in parts:
            for count in wanted[1:]:
                if not self.grow(count):
                    break
                self.unchanged()
                self.look()


def show(results: dict[str, Any], plot: Path) -> None:
    plot.parent.mkdir(parents=True, exist_ok=True)
    plot.write_text(report.svg(results))
    print(f"\n{report.markdown(results)}\nThe plot is in {plot}.")


def arguments_of(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--computes", type=sizes, default=[1, 2, 4, 8], help="numbers of lab computes (%(default)s)")
    parser.add_argument("--simulated", type=sizes, default=[25, 50, 100, 200], help="of simulated ones (%(default)s)")
    parser.add_argument("--burst", type=int, default=50, help="servers booted on them at each size; 0 for none")
    parser.add_argument(
        "--rounds", type=int, default=1, help="runs that change nothing at each size; the median counts"
    )
    parser.add_argument("--idle-seconds", type=float, default=60, help="how long CPU time is counted")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds that one playbook may take")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=["hosts", "simulation"],
        default=["hosts", "simulation"],
        help="hosts, simulation, or both; simulation alone uses the lab that --keep left",
    )
    parser.add_argument("--keep", action="store_true", help="leave the lab")
    parser.add_argument("--show", type=Path, metavar="JSON", help="only show the results of an earlier run")
    parser.add_argument("--svg", type=Path, default=DIRECTORY / "scale.svg", help="where the plot goes (%(default)s)")
    return parser.parse_args(given)


def ended(*_: Any) -> None:
    """A measurement that is ended from outside removes what it made, too."""
    raise Failed("ended by SIGTERM")


def main() -> int:
    """Measure and show. Returns 1 when a step failed or a run changed what it should not."""
    options = arguments_of()
    if options.show:
        show(json.loads(options.show.read_text()), options.svg)
        return 0
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    signal.signal(signal.SIGTERM, ended)
    try:
        bench.run()
    except (Failed, subprocess.TimeoutExpired) as error:
        bench.failed = True
        bench.remark(f"Failed: {error}")
    finally:
        bench.save()
        if not options.keep:
            bench.destroy()
    show(bench.results, options.svg)
    print(f"The figures are in {(DIRECTORY / bench.stamp).relative_to(PROJECT)}.json.")
    return int(bench.failed)


if __name__ == "__main__":
    sys.exit(main())
