# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A lab with several controllers: commands on its machines, its playbooks, and which controller has which part."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tools.chaos.lab import Lab
from tools.chaos.moments import PROJECT

CONTROLLERS = ["ctl1", "ctl2", "ctl3"]
COMPUTES = ["cmp1", "cmp2"]
DATABASES = {"nb": "OVN_Northbound", "sb": "OVN_Southbound"}


def own_inventory(directory: Path) -> Path:
    """Write an inventory of three controllers and two computes, a lab named chaos-ha."""
    (directory / "group_vars" / "all").mkdir(parents=True, exist_ok=True)
    groups = {
        "lab": {
            "vars": {
                "lab_name": "chaos-ha",
                "lab_project_directory": str(PROJECT),
                "lab_interfaces": [{"name": "eth1"}, {"name": "eth2"}],
                "flat_interface": "eth1",
                "ovn_chassis_tunnel_interface": "eth2",
                "lab_shared_directories": ["/var/lib/glance/images"],
                "glance_store_shared": True,
                "cloud_api_address": "{{ lab_subnet | lab_address(190) }}",
                # The machines share the processors of this computer.
                "cloud_api_workers": 1,
            },
            "hosts": dict.fromkeys(CONTROLLERS + COMPUTES),
        },
        "controller": {"hosts": dict.fromkeys(CONTROLLERS)},
        "compute": {"hosts": dict.fromkeys(COMPUTES)},
    }
    (directory / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}, sort_keys=False))
    shared = PROJECT / "inventory" / "lab" / "group_vars" / "lab.yml"
    (directory / "group_vars" / "lab.yml").write_text(shared.read_text())
    return directory


class Failed(Exception):
    """A command failed that has to work."""


def run(command: list[str], timeout: float = 600, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, without a terminal."""
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False, **more
    )


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait for a condition; return the seconds that it took, or raise Failed."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise Failed(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.5)
    return time.monotonic() - began


@dataclass
class Site:
    """The lab, and what is where in its cloud."""

    lab: Lab
    logs: Path

    @functools.cached_property
    def groups(self) -> dict[str, list[str]]:
        """The hosts of each group."""
        done = run([_program("ansible-inventory"), "-i", str(self.lab.inventory), "--list"], cwd=PROJECT)
        if done.returncode:
            raise Failed(done.stderr)
        found = json.loads(done.stdout)
        return {name: found[name].get("hosts", []) for name in ("controller", "compute")}

    @property
    def controllers(self) -> list[str]:
        return self.groups["controller"]

    @property
    def clouds(self) -> Path:
        """The clouds.yaml for this computer, with one cloud, kilonova."""
        return PROJECT / ".cache" / self.lab.name / "clouds.yaml"

    @property
    def address(self) -> str:
        """The address of the APIs."""
        clouds = yaml.safe_load(self.clouds.read_text())["clouds"]
        return str(urlsplit(clouds["kilonova"]["auth"]["auth_url"]).hostname)

    def on(self, host: str, script: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a shell script on a machine; return what came of it, 255 if the machine does not answer."""
        config = self.lab.directory / "machines" / host / "ssh_config"
        ssh = ["ssh", "-F", str(config), "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", host, script]
        try:
            return run(ssh, timeout)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(ssh, 255, "", f"no answer within {timeout} s")

    def must(self, host: str, script: str, timeout: float = 120) -> str:
        """Run a shell script that has to work, and return its output."""
        done = self.on(host, script, timeout)
        if done.returncode:
            raise Failed(f"{host}: {script}: {done.stderr or done.stdout}")
        return done.stdout

    def playbook(self, name: str, *arguments: str, timeout: float = 3600) -> int:
        """Run a playbook, with its output in a log, and return its exit status."""
        log = self.logs / f"{time.strftime('%H%M%S')}-{Path(name).stem}.log"
        with log.open("w") as output:
            done = subprocess.run(
                [_program("ansible-playbook"), "-i", str(self.lab.inventory), name, *arguments],
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
                timeout=timeout,
                check=False,
            )
        return done.returncode

    def power_off(self, hosts: Iterable[str]) -> None:
        """Cut the power of machines, at the same time."""
        code = self.playbook("playbooks/lab-stop.yml", "-e", "lab_stop_timeout=0", "--limit", ",".join(hosts))
        if code:
            raise Failed(f"lab-stop.yml ended with {code}")

    def start(self, hosts: Iterable[str]) -> None:
        """Start machines, at the same time."""
        code = self.playbook("playbooks/lab-start.yml", "--limit", ",".join(hosts))
        if code:
            raise Failed(f"lab-start.yml ended with {code}")

    def has_address(self, host: str, address: str) -> bool:
        return bool(self.on(host, f"ip -oneline address show to {address}/32").stdout.strip())

    def address_holder(self, address: str = "") -> str:
        """Return the controller that has the address of the APIs, or another one that moves."""
        address = address or self.address
        holders = [host for host in self.controllers if self.has_address(host, address)]
        if len(holders) != 1:
            raise Failed(f"{address} is on {', '.join(holders) or 'no controller'}")
        return holders[0]

    def database_writer(self) -> str:
        """Return the controller whose database is written to: while all are in step, the first one."""
        return self.controllers[0]

    def queue_leader(self) -> str:
        """Return the controller that leads most queues."""
        ask = (
            "for vhost in $(rabbitmqctl --quiet --no-table-headers list_vhosts name)"
            "; do rabbitmqctl --quiet --no-table-headers --vhost $vhost list_queues --local name; done"
        )
        return max(self.controllers, key=lambda host: len(self.must(host, ask).split()))

    def raft_leader(self, database: str) -> str:
        """Return the controller that leads nb or sb of OVN."""
        ask = f"ovs-appctl -t /run/ovn/ovn{database}_db.ctl cluster/status {DATABASES[database]}"
        for host in self.controllers:
            if "Role: leader" in self.on(host, ask).stdout:
                return host
        raise Failed(f"OVN's {database} has no leader")

    def plain(self) -> str:
        """Return a controller that has neither the address nor the database that is written to."""
        taken = {self.address_holder(), self.database_writer()}
        return next(host for host in reversed(self.controllers) if host not in taken)

    def verify(self, timeout: float) -> bool:
        """Return whether verification passes, which waits for services as long as the timeout."""
        values = {"verify_timeout": int(timeout), "verify_probe_guests": False}
        return self.playbook("playbooks/verify.yml", "-e", json.dumps(values), timeout=timeout + 600) == 0


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)
