# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""One measurement: real computes, then a call of the simulation, and the file with the results."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.scale.lab import DIRECTORY, INVENTORY, LABS, PROJECT, SITE_INVENTORY, Failed, Lab
from tools.scale.plan import (
    COMPUTE_DISK_MIB,
    COMPUTE_MIB,
    CONTROLLER,
    CONTROLLER_DISK_MIB,
    CONTROLLER_MIB,
    changed_hosts,
    computes_up_to,
    growth_steps,
    memory_available_mib,
    shortage,
)
from tools.scale.simulation import Simulation


class Bench:
    """The steps of a measurement and their results so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.stamp = time.strftime("%Y%m%dT%H%M%S")
        self.lab = Lab(DIRECTORY / self.stamp, options.timeout)
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
        """Return the commit that is measured."""
        command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        return found.stdout.strip() or "unknown"

    def say(self, text: str) -> None:
        """Print a line of progress."""
        print(f"{time.monotonic() - self.begun:7.0f} s  {text}", flush=True)

    def remark(self, text: str) -> None:
        """Record a remark for the reader of the results."""
        self.results["remarks"].append(text)
        self.say(text)

    def save(self) -> None:
        """Write the results so far."""
        (DIRECTORY / f"{self.stamp}.json").write_text(json.dumps(self.results, indent=1) + "\n")

    def add_size(self, size: dict[str, Any]) -> None:
        """Record a measured size."""
        self.results["sizes"].append(size)
        self.save()

    def fits(self, what: str, needed_mib: int, needed_disk_mib: int = 0) -> bool:
        """Return whether the next step has room, and record it if not."""
        disk = shutil.disk_usage(LABS if LABS.exists() else "/").free // 2**20
        memory = memory_available_mib(Path("/proc/meminfo").read_text())
        reason = shortage(memory, disk, needed_mib, needed_disk_mib)
        if reason:
            self.remark(f"Stopped before {what}: {reason}.")
        return not reason

    def note_run(self, kind: str, added: Sequence[str], record: dict[str, Any], verify: bool = True) -> None:
        """Record a run of site.yml."""
        entry = {"kind": kind, "computes": self.present, "added": list(added), "verify": verify} | record
        self.results["runs"].append(entry)
        self.save()
        names = f" ({', '.join(added)})" if added else ""
        self.say(f"{kind}{names}: {record['seconds']:.1f} s with {self.present} computes")

    def first(self, count: int) -> None:
        """Deploy on bare machines. Raise Failed, also if there is no room."""
        if not self.fits(
            "the first deployment",
            CONTROLLER_MIB + count * COMPUTE_MIB,
            CONTROLLER_DISK_MIB + count * COMPUTE_DISK_MIB,
        ):
            raise Failed("nothing can be measured without it")
        for directory in (INVENTORY, SITE_INVENTORY):
            shutil.rmtree(directory, ignore_errors=True)
        self.lab.write_inventory(computes_up_to(count))
        record = self.lab.playbook("first", "site.yml")
        self.present = count
        self.note_run("first", [CONTROLLER, *computes_up_to(count)], record)

    def attach(self) -> bool:
        """Use the lab that an earlier measurement left. Return whether there is one."""
        if not self.lab.exists:
            return False
        self.present = self.lab.computes()
        self.say(f"using the existing lab with {self.present} computes")
        return True

    def grow(self, count: int) -> bool:
        """Add computes up to a number, the last one alone. Return whether there was room."""
        missing = count - self.present
        if not self.fits(f"compute {count}", missing * COMPUTE_MIB, missing * COMPUTE_DISK_MIB):
            return False
        for kind, new in growth_steps(self.present, count):
            size = self.present + len(new)
            self.lab.write_inventory(computes_up_to(size))
            record = self.lab.playbook(f"{kind}-{size}", "site.yml", "--limit", ",".join(new))
            self.present = size
            self.note_run(kind, new, record)
        return True

    def unchanged(self) -> None:
        """Time runs that must change nothing, with and without verification."""
        self.lab.write_site_inventory(computes_up_to(self.present))
        if any(run["kind"] == "add" for run in self.results["runs"][-1:]):
            # --limit left the other hosts without the names of the new ones.
            record = self.lab.playbook(f"names-{self.present}", "site.yml", "--tags", "base")
            self.note_run("names", [], record, verify=False)
        for number in range(self.options.rounds):
            for verify in (True, False):
                name = f"unchanged-{self.present}-{'verified' if verify else 'plain'}-{number + 1}"
                skipped = [] if verify else ["--skip-tags", "verify"]
                record = self.lab.playbook(name, "site.yml", *skipped, hosts=SITE_INVENTORY)
                self.note_run("unchanged", [], record, verify)
                for host, tasks in changed_hosts(record).items():
                    self.failed = True
                    self.remark(f"NOT without a change: {name} changed {host}: {'; '.join(tasks)}.")

    def look(self) -> None:
        """Measure the idle controller and an idle compute."""
        self.lab.copy(CONTROLLER, "probe.py")
        self.lab.copy("cmp1", "probe.py")
        controller, compute = self.lab.measure(self.options.idle_seconds)
        package_mib = int(self.lab.ssh("cmp1", "du -sm /var/cache/apt/archives").split()[0])
        self.add_size(
            {
                "computes": self.present,
                "simulated": 0,
                "simulation": False,
                "controller": controller,
                "compute": compute,
                "package_mib": package_mib,
            }
        )
        self.say(f"measured the controller with {self.present} computes")

    def run(self) -> None:
        """Run all parts. Raise Failed."""
        parts = self.options.parts
        wanted = self.options.computes
        if "hosts" in parts or not self.attach():
            self.lab.destroy()
            self.first(wanted[0])
        if "hosts" in parts:
            self.unchanged()
            self.look()
        if "simulation" in parts:
            try:
                Simulation(self).run()
            except (Failed, subprocess.TimeoutExpired) as error:
                # The other part can still be measured.
                self.failed = True
                self.remark(f"Failed: {error}")
        if "hosts" in parts:
            for count in wanted[1:]:
                if not self.grow(count):
                    break
                self.unchanged()
                self.look()
