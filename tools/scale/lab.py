# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The lab that grows: its inventories, playbooks on it, and commands on its machines."""

from __future__ import annotations

import json
import os
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
from tools.scale.plan import CONTROLLER, LAB_NAME, inventory

PROJECT = Path(__file__).resolve().parents[2]
DIRECTORY = PROJECT / ".cache" / "bench-scale"
INVENTORY = DIRECTORY / "inventory"
# The same hosts without the group lab, so that site.yml does not look after machines.
SITE_INVENTORY = DIRECTORY / "site"
LABS = Path("/var/lib/kilonova/lab")
# A directory on the machines that their next boot removes.
REMOTE = "/run/kilonova-scale"


class Failed(Exception):
    """A step did not do what the next steps need."""


class Lab:
    """The lab of one measurement."""

    def __init__(self, logs: Path, timeout: float) -> None:
        self.identifier = lab_id(str(PROJECT), LAB_NAME)
        self.logs = logs
        self.timeout = timeout

    @property
    def ssh_config(self) -> Path:
        """The configuration with which ssh reaches the machines."""
        return LABS / self.identifier / "ssh_config"

    @property
    def exists(self) -> bool:
        """Whether an earlier measurement left the lab."""
        return (INVENTORY / "hosts.yml").exists() and self.ssh_config.exists()

    def computes(self) -> int:
        """Return how many computes the inventory has."""
        content = yaml.safe_load((INVENTORY / "hosts.yml").read_text())
        return len(content["all"]["children"]["compute"]["hosts"])

    def write_inventory(self, computes: Sequence[str]) -> None:
        """Write the inventory of the lab."""
        (INVENTORY / "group_vars").mkdir(parents=True, exist_ok=True)
        shared = INVENTORY / "group_vars" / "lab.yml"
        if not shared.is_symlink():
            shared.symlink_to(PROJECT / "inventory" / "lab" / "group_vars" / "lab.yml")
        content = yaml.safe_dump(inventory(PROJECT, computes), sort_keys=False)
        (INVENTORY / "hosts.yml").write_text(content.replace(": null", ":"))

    def write_site_inventory(self, computes: Sequence[str]) -> None:
        """Write an inventory with the same hosts and secrets, but without the group lab."""
        (SITE_INVENTORY / "group_vars").mkdir(parents=True, exist_ok=True)
        groups = inventory(PROJECT, computes)["all"]["children"]
        del groups["lab"]
        (SITE_INVENTORY / "hosts.yml").write_text(site_inventory(groups, INVENTORY))
        secrets = SITE_INVENTORY / "group_vars" / "all"
        if not secrets.is_symlink():
            secrets.symlink_to(INVENTORY / "group_vars" / "all")

    def playbook(self, name: str, playbook: str, *arguments: str, hosts: Path = INVENTORY) -> dict[str, Any]:
        """Run a playbook. Return the record of the callback host_times, with the seconds of the run. Raise Failed."""
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
                timeout=self.timeout,
            ).returncode
        seconds = round(time.monotonic() - start, 1)
        if code:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
            raise Failed(f"{playbook} ended with {code} ({name}); the end of {log}:\n{tail}")
        record: dict[str, Any] = json.loads(times.read_text())
        return record | {"seconds": seconds}

    def destroy(self) -> None:
        """Remove the lab with every machine it ever had."""
        if (INVENTORY / "hosts.yml").exists():
            self.playbook("destroy", "playbooks/destroy.yml")

    def ssh(self, host: str, command: str, content: str = "", timeout: float = 1800) -> str:
        """Run a command on a machine and return its output. Raise Failed."""
        done = subprocess.run(
            ["ssh", "-F", str(self.ssh_config), host, command],
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
        """Copy a script of tools/scale to a machine."""
        content = (PROJECT / "tools" / "scale" / name).read_text()
        self.ssh(host, f"install -d {REMOTE} && cat > {REMOTE}/{name} && chmod 755 {REMOTE}/{name}", content)

    def probe(self, host: str, *arguments: str) -> dict[str, Any]:
        """Run probe.py on a machine and return its result."""
        answer: dict[str, Any] = json.loads(self.ssh(host, f"{REMOTE}/probe.py {' '.join(arguments)}"))
        return answer

    def measure(self, seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """Measure the controller and cmp1 at the same time."""
        idle = ["--seconds", str(seconds)]
        with ThreadPoolExecutor() as pool:
            controller = pool.submit(self.probe, CONTROLLER, "measure", "--controller", *idle)
            compute = pool.submit(self.probe, "cmp1", "measure", *idle)
        return controller.result(), compute.result()
