# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Compare site.yml with a deployment by hand, and with further runs of site.yml: docs/internals/performance.md.

Exit code: 1 if a run failed, a run with nothing to do changed something, or a unit restarted without a reason; 2 for
invalid options; otherwise 0.
"""

from __future__ import annotations

import argparse
import copy
import fcntl
import json
import re
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tools.bench import figures
from tools.bench.lab import (
    MEMORY_LIMIT,
    OUTPUT,
    PROJECT,
    TOOL,
    BenchError,
    Cloud,
    Machine,
    describe_computer,
    machine,
    playbook,
    wait_for_quiet,
)

# What (d) and (e) change: the variable, and the file it ends up in.
CHANGED = {
    "d": ("nova_api_conf_overrides", "/etc/nova/nova-api.conf"),
    "e": ("nova_conf_overrides", "/etc/nova/nova.conf"),
}
# The option in both. No guest or client notices its value.
OPTION = ("api", "max_limit")
OPTION_DEFAULT = 1000


class UsageError(Exception):
    """Invalid options."""


# ------------------------------------------------------------------ what to do
def parts_of(only: str, inventory: str) -> str:
    """Return the measurements to make, as letters in order."""
    asked = [part for part in re.split(r"[\s,]+", only.lower()) if part]
    unknown = [part for part in asked if part not in figures.MEANING]
    if unknown:
        raise UsageError(f"ONLY={only}: there is no {', '.join(unknown)}; name some of {', '.join(figures.MEANING)}.")
    parts = "".join(letter for letter in figures.MEANING if letter in (asked or ("cde" if inventory else "abcde")))
    if inventory and set("ab") & set(parts):
        raise UsageError(
            f"INVENTORY={inventory} is an existing cloud, on which only c, d and e can be measured: a and b begin "
            "on bare machines, which the benchmark creates. Leave INVENTORY out, or write ONLY=c,d,e."
        )
    if "a" in parts and "b" not in parts and set("cde") & set(parts):
        raise UsageError(
            "c, d and e are measured on the cloud that b deploys: add b, or leave a out for an existing cloud."
        )
    return parts


def order(number: int, sides: Sequence[str]) -> list[str]:
    """Return the sides in the order of a round, counted from 1. The order alternates."""
    return list(sides) if number % 2 else list(reversed(sides))


def changed_option(variable: str, overrides: Any) -> dict[str, Any]:
    """Return the value of a variable with overrides, with one option changed."""
    section, option = OPTION
    wanted = copy.deepcopy(overrides) if overrides else {}
    if not isinstance(wanted, dict) or not isinstance(wanted.setdefault(section, {}), dict):
        raise BenchError(f"{variable} is not a mapping of mappings, so [{section}] {option} cannot be added to it.")
    wanted[section][option] = int(wanted[section].get(option, OPTION_DEFAULT)) + 1
    return wanted


def units_reading(path: str, services: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the units that read a file, according to the service maps."""
    return {
        unit["name"]
        for service in services
        for unit in service["units"]
        if any(path == read or path.startswith(f"{read}/") for read in unit.get("reads", []))
    }


def units_of_computes(services: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the units that only computes have."""
    return {unit["name"] for service in services if service["groups"] == ["compute"] for unit in service["units"]}


def service_maps() -> list[dict[str, Any]]:
    """Return the service maps of all roles whose units are no template."""
    return [service for service in all_service_maps() if isinstance(service.get("units"), list)]


def all_service_maps() -> list[dict[str, Any]]:
    """Return the service maps of all roles that every cloud has.

    A template is replaced by the role's list, such as libvirt_units.
    """
    found = []
    for file in sorted(PROJECT.glob("roles/*/vars/main.yml")):
        content = yaml.safe_load(file.read_text())
        for name, value in content.items():
            if name.endswith("_service") and isinstance(value["groups"], list):
                lists = {key: content.get(f"{value['name']}_{key}") for key in ("packages", "units")}
                lists = {key: known for key, known in lists.items() if known and isinstance(value.get(key), str)}
                found.append({**value, **lists})
    return found


def baseline_packages(script: str) -> list[str]:
    """Return the packages of the deployment by hand."""
    match = re.search(r'^packages="(.*?)"', script, re.MULTILINE | re.DOTALL)
    assert match
    return match[1].split()


# ------------------------------------------------------------------ measuring
class Bench:
    """The rounds and problems of one call of the benchmark."""

    def __init__(self, parts: str, rounds: int, keep: bool) -> None:
        self.parts, self.count, self.keep = parts, rounds, keep
        self.rounds: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.stamp = time.strftime("%Y%m%dT%H%M%S")
        self.logs = OUTPUT / self.stamp
        self.logs.mkdir(parents=True)
        self.image = OUTPUT / "guest.qcow2"

    def say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)

    def begin(self, number: int) -> None:
        self.rounds.append({})
        self.say(f"round {number} of {self.count}")

    def note(self, letter: str, result: dict[str, Any]) -> None:
        self.rounds[-1][letter] = result
        self.say(f"  {letter} {result['seconds']:8.1f} s  {figures.MEANING[letter]}")

    def problem(self, text: str) -> None:
        self.problems.append(f"round {len(self.rounds)}: {text}" if self.rounds else text)
        self.say(f"  PROBLEM: {text}")

    def log(self, letter: str) -> Path:
        return self.logs / f"{len(self.rounds)}-{letter}.log"

    # -------------------------------------------------------------- from bare machines
    def from_bare(self) -> None:
        sides = [side for side in ("a", "b") if side in self.parts]
        self.say("preparing the base image, the packages of both deployments and the test image")
        with machine("bench-prepare", self.logs, self.keep) as made:
            self.prepare(made)
        for number in range(1, self.count + 1):
            self.begin(number)
            for side in order(number, sides):
                with machine(f"bench-{side}", self.logs, self.keep) as made:
                    self.by_hand(made) if side == "a" else self.by_site(made)

    def prepare(self, made: Machine) -> None:
        packages = baseline_packages((PROJECT / TOOL / "baseline.sh").read_text())
        words = json.dumps({"bench_packages": packages, "bench_image": str(self.image)})
        playbook(self.logs / "prepare.log", "-i", str(made.hosts_file), "-e", words, str(TOOL / "prepare.yml"))

    def by_hand(self, made: Machine) -> None:
        result = made.by_hand(self.log("a"), self.image)
        result["stages"] = figures.stages(result.pop("output"), result["seconds"])
        result["packages"] = int(made.say("dpkg-query --show | wc -l"))
        self.note("a", result)

    def by_site(self, made: Machine) -> None:
        cloud = Cloud([str(made.hosts_file)])
        with made.watch() as watch:
            quiet = wait_for_quiet()
            result = cloud.site(self.log("b"), watch=watch)
        result |= {"busy_before": quiet, "packages": int(made.say("dpkg-query --show | wc -l"))}
        self.note("b", result)
        self.again(cloud)

    # -------------------------------------------------------------- on a cloud
    def on_cloud(self, inventory: str, arguments: Sequence[str]) -> None:
        cloud = Cloud([inventory], arguments)
        for number in range(1, self.count + 1):
            self.begin(number)
            try:
                self.again(cloud)
            finally:
                if set(CHANGED) & set(self.parts):
                    self.say("  restoring the options")
                    cloud.site(self.log("back"))

    def again(self, cloud: Cloud) -> None:
        """Measure c, d and e, if wanted."""
        if "c" in self.parts:
            self.nothing_to_do(cloud)
        changed: dict[str, Any] = {}
        for letter in CHANGED:
            if letter in self.parts:
                # An earlier change stays, so that each run has one change.
                changed |= self.one_option(cloud, letter, changed)

    def measured(self, cloud: Cloud, letter: str, *arguments: str) -> dict[str, Any]:
        before = cloud.state("controller:compute", "units")
        quiet = wait_for_quiet()
        result = cloud.site(self.log(letter), *arguments)
        after = cloud.state("controller:compute", "units")
        units = {host: figures.restarted(before[host]["units"], after[host]["units"]) for host in before}
        result |= {"busy_before": quiet, "restarted": units, "changes": figures.changes(result)}
        self.note(letter, result)
        return result

    def nothing_to_do(self, cloud: Cloud) -> None:
        result = self.measured(cloud, "c")
        changed = sum(host["changed"] for host in result["hosts"].values())
        if changed:
            self.problem(f"a run with nothing to do changed {changed}: {'; '.join(result['changes'])}")
        for host, units in result["restarted"].items():
            if units:
                self.problem(f"a run with nothing to do restarted on {host}: {', '.join(units)}")
        (memory,) = cloud.state("controller[0]", "memory", str(MEMORY_LIMIT)).values()
        other = units_of_computes(service_maps())
        memory["control_plane_kib"] = sum(kib for unit, kib in memory["cloud"].items() if unit not in other)
        self.rounds[-1]["memory"] = memory
        kept = "" if memory["steady"] else f", not steady after {MEMORY_LIMIT} s"
        plane = f"{memory['control_plane_kib'] / 2**20:.2f} of it the control plane's"
        self.say(f"    {memory['kib'] / 2**20:6.2f} GiB of memory, {plane}{kept}")

    def one_option(self, cloud: Cloud, letter: str, before: Mapping[str, Any]) -> dict[str, Any]:
        """Measure a run with one changed option. Return the changed variable."""
        variable, path = CHANGED[letter]
        controller = next(iter(cloud.hosts("controller")), "")
        wanted = {variable: changed_option(variable, cloud.variables(controller).get(variable))}
        result = self.measured(cloud, letter, "-e", json.dumps({**before, **wanted}))
        may = units_reading(path, service_maps())
        for host, units in result["restarted"].items():
            self.say(f"    restarted on {host}: {', '.join(units) or 'nothing'}")
            if set(units) - may:
                self.problem(f"restarted on {host} without reading {path}: {', '.join(sorted(set(units) - may))}")
        if not any(set(units) & may for units in result["restarted"].values()):
            self.problem(f"{path} changed and no unit that reads it restarted")
        return wanted

    # -------------------------------------------------------------- the end
    def report(self, rows: int) -> str:
        texts = [figures.table(self.rounds)] if any(self.rounds) else []
        stages = [one["a"]["stages"] for one in self.rounds if "a" in one]
        if stages:
            texts.append(f"a, by stage:\n{figures.stage_table(stages)}")
        for letter in "bcde":
            runs = [one[letter] for one in self.rounds if letter in one]
            if runs:
                profile = figures.profile_table(figures.middle_profile(runs), rows)
                texts.append(f"{letter}, by task (medians):\n{profile}")
        memory = [one["memory"] for one in self.rounds if "memory" in one]
        if memory:
            texts.append(f"memory, by unit (last round):\n{figures.memory_table(memory[-1])}")
        if self.problems:
            texts.append("\n".join(["PROBLEMS", *self.problems]))
        return "\n\n".join(texts)

    def write(self) -> Path:
        record = OUTPUT / f"{self.stamp}.json"
        content = {
            "parts": self.parts,
            "computer": describe_computer(),
            "ratios": figures.ratios(self.rounds),
            "problems": self.problems,
            "rounds": self.rounds,
        }
        record.write_text(json.dumps(content, indent=1) + "\n")
        return record


def stop(number: int, _frame: Any) -> None:
    """End like on control-C, so that the machines are removed."""
    raise KeyboardInterrupt(number)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="some of a, b, c, d, e")
    parser.add_argument("--inventory", default="", help="an existing cloud, for c, d and e")
    parser.add_argument("--args", default="", help="further arguments for ansible-playbook on that cloud")
    parser.add_argument("--rows", type=int, default=25, help="number of tasks in a profile")
    parser.add_argument("--keep", action="store_true", help="leave the machine of a failed run")
    arguments = parser.parse_args()
    try:
        parts = parts_of(arguments.only, arguments.inventory)
    except UsageError as error:
        parser.error(str(error))
    OUTPUT.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, stop)
    with (OUTPUT / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            parser.error("another benchmark of this checkout is running")
        bench = Bench(parts, arguments.rounds, arguments.keep)
        try:
            if set("ab") & set(parts):
                bench.from_bare()
            else:
                bench.on_cloud(arguments.inventory or "inventory/lab", shlex.split(arguments.args))
        except BenchError as error:
            bench.problem(str(error))
        except KeyboardInterrupt:
            bench.problem("interrupted; the machines of the benchmark are removed")
        print(f"\n{bench.report(arguments.rows)}\n\n{bench.write().relative_to(PROJECT)}")
    return 1 if bench.problems else 0


if __name__ == "__main__":
    sys.exit(main())
