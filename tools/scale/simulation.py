# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Simulated computes on one real compute: start more and more of them, measure, and remove them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from tools.scale.lab import REMOTE, Failed
from tools.scale.plan import CONTROLLER, SIMULATED_MIB

if TYPE_CHECKING:
    from tools.scale.bench import Bench

PREFIX = "fake"
FAKE_DIRECTORY = "/var/lib/nova/fake-computes"
UNIT = "kilonova-fake-computes"
# Nova spreads the start of its periodic tasks over this time (periodic_fuzzy_delay).
SETTLE_SECONDS = 60


class Simulation:
    """The simulated computes of a measurement."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.options, self.lab = bench.options, bench.lab

    def run(self) -> None:
        """Start more and more simulated computes on cmp1, measure, and remove them all."""
        self.lab.copy(CONTROLLER, "probe.py")
        self.lab.copy("cmp1", "probe.py")
        self.lab.copy("cmp1", "fake_computes.py")
        account = self.lab.ssh(CONTROLLER, "grep ^transport_url /etc/nova/nova.conf")
        self.lab.ssh(
            "cmp1",
            f"install -d -o nova -g nova {FAKE_DIRECTORY}"
            f" && install -o nova -m 600 /dev/stdin {FAKE_DIRECTORY}/messaging.conf",
            f"[DEFAULT]\n{account}",
        )
        present, each = 0, float(SIMULATED_MIB)
        try:
            self.measure(0, {})
            for count in self.options.simulated:
                if not self.bench.fits(f"{count} simulated computes", int((count - present) * each)):
                    break
                each = self.start(present, count)
                present = count
        finally:
            self.remove()

    def start(self, present: int, count: int) -> float:
        """Start simulated computes up to a number. Return the MiB that each takes. Raise Failed."""
        options = f"--unit {UNIT}-{count} --uid nova --gid nova --collect --property TasksMax=infinity"
        limits = "--property LimitNOFILE=65536 --setenv PYTHONDONTWRITEBYTECODE=1"
        arguments = f"--prefix {PREFIX} --first {present + 1} --last {count} --directory {FAKE_DIRECTORY}"
        self.lab.ssh("cmp1", f"systemd-run {options} {limits} {REMOTE}/fake_computes.py {arguments}")
        names = [f"{PREFIX}-{number:04}" for number in range(1, count + 1)]
        seconds = self.wait_up(count)
        variables = json.dumps({"scale_computes": names})
        mapped = self.lab.playbook(f"map-{count}", "tools/scale/discover.yml", "--extra-vars", variables)
        self.bench.say(f"{count} simulated computes are up after {seconds:.0f} s, and mapped")
        entry = {"new": count - present, "up_seconds": seconds, "map_seconds": mapped["seconds"]}
        size = self.measure(count, entry)
        if self.options.burst:
            burst = size["burst"] = self.burst()
            self.bench.save()
            self.bench.say(f"{burst['active']} of {self.options.burst} servers after {burst['seconds']} s")
        return float(size["simulation_mib"]) / count

    def wait_up(self, count: int) -> float:
        """Return the seconds until so many are up. Raise Failed, also as soon as their process has ended."""
        seconds = 0.0
        while True:
            up = self.lab.probe(CONTROLLER, "wait-up", "--prefix", PREFIX, "--count", str(count), "--timeout", "120")
            seconds += up["seconds"]
            if up["reached"]:
                return seconds
            running = self.lab.ssh("cmp1", f"systemctl list-units --plain --no-legend {UNIT}-{count}.service")
            if seconds > self.options.timeout or not running:
                log = self.lab.ssh("cmp1", f"journalctl --no-pager --lines 60 --unit {UNIT}-{count}")
                raise Failed(
                    f"only {up['up']} of {count} simulated computes are up, {up['providers']} providers:\n{log}"
                )

    def burst(self) -> dict[str, Any]:
        """Boot many servers at once."""
        return self.lab.probe(CONTROLLER, "burst", "--count", str(self.options.burst), "--prefix", PREFIX)

    def measure(self, count: int, entry: dict[str, Any]) -> dict[str, Any]:
        """Measure the controller with so many simulated computes."""
        lists = self.lab.probe(CONTROLLER, "lists")
        time.sleep(SETTLE_SECONDS if count else 0)
        controller, compute = self.lab.measure(self.options.idle_seconds)
        ours = [mib for unit, mib in compute["memory_mib"].items() if unit.startswith(UNIT)]
        size = {
            "computes": self.bench.present,
            "simulated": count,
            "simulation": True,
            "lists": lists,
            "controller": controller,
            "compute": compute,
            "simulation_mib": round(sum(ours), 1),
        } | entry
        self.bench.add_size(size)
        memory = controller["memory_total_mib"]
        self.bench.say(f"measured with {count} simulated computes: {memory:.0f} MiB on the controller")
        return size

    def remove(self) -> None:
        """Stop all simulated computes and remove them from the cloud. Raise Failed if something is left."""
        self.lab.ssh("cmp1", f"systemctl stop '{UNIT}-*'")
        removed = self.lab.probe(CONTROLLER, "remove", "--prefix", PREFIX)
        self.lab.ssh("cmp1", f"rm -rf {FAKE_DIRECTORY} {REMOTE}")
        self.bench.results["removed"] = removed
        self.bench.save()
        left = {what: count for what, count in removed["left"].items() if count}
        if left:
            raise Failed(f"simulated computes are left in the cloud: {left}")
        self.bench.say(f"removed {removed['removed']} simulated computes in {removed['seconds']:.0f} s")
