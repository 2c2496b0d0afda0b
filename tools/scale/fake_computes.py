#!/usr/bin/python3
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Run many nova-compute services with the fake driver of Nova. make bench-scale copies this to a compute.

To the control plane, each is a compute with a name, an identity, a queue, a resource provider, reports every ten
seconds and periodic tasks. They fork from one process that has imported Nova, to share most of their memory. Each reads
nova.conf of the host and a small file with its name.

Ends when all of them have ended. systemd stops them by sending SIGTERM to all processes.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Imported by nova-compute after its start. Imported before the fork, they share memory.
LATER_IMPORTS = (
    "glanceclient",
    "keystoneauth1.loading._plugins.identity.generic",
    "kombu.transport.pyamqp",
    "neutronclient.v2_0.client",
    "nova.compute.manager",
    "nova.compute.monitors.cpu.virt_driver",
    "nova.servicegroup.drivers.db",
    "nova.virt.fake",
    "openstack.connection",
    "oslo_messaging._drivers.impl_rabbit",
    "pyroute2",
    "vif_plug_linux_bridge.linux_bridge",
    "vif_plug_ovs.ovs",
)


def compute_names(prefix: str, first: int, last: int) -> list[str]:
    """Return fake-0001 and so on."""
    return [f"{prefix}-{number:04}" for number in range(first, last + 1)]


def configuration(name: str, directory: Path) -> str:
    """Return the options that a service reads after nova.conf of the host."""
    options = {
        "host": name,
        # For the file compute_id.
        "state_path": str(directory / name),
        "compute_driver": "fake.FakeDriverWithoutFakeNodes",
    }
    return "".join(["[DEFAULT]\n", *(f"{key} = {value}\n" for key, value in options.items())])


def signal_when_started(service_class: Any, pipe: int, system: Any) -> None:
    """Write to the pipe once the service listens on its queue and is in the database."""
    original: Callable[[Any], None] = service_class.start

    def start(self: Any) -> None:
        original(self)
        system.write(pipe, b"+")
        system.close(pipe)

    service_class.start = start


def become_compute(name: str, directory: Path, nova_conf: str, pipe: int, system: Any) -> None:
    """Run main() of nova-compute in a fork. Does not return."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        compute = importlib.import_module("nova.cmd.compute")
        signal_when_started(importlib.import_module("nova.service").Service, pipe, system)
        own = directory / name / "nova-compute.conf"
        # The account of a compute reads the queues of one compute only. simulation.py writes one that reads all.
        files = [nova_conf, directory / "messaging.conf", own]
        sys.argv = ["nova-compute", *(f"--config-file={file}" for file in files)]
        compute.main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
        system._exit(code)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        system._exit(1)
    system._exit(0)


def run(names: list[str], directory: Path, nova_conf: str, at_once: int) -> int:
    """Start the services, at most so many at a time, and wait for all. Return how many failed."""
    # First the module with which eventlet replaces parts of the standard library.
    for module in ("nova.cmd.compute", *LATER_IMPORTS):
        importlib.import_module(module)
    importlib.import_module("nova.objects").register_all()
    # The versions of eventlet would start an event loop, whose file descriptors all forks would share.
    system = importlib.import_module("eventlet.patcher").original("os")
    # systemd kills the services when this process ends.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    starting: list[int] = []
    running: dict[int, str] = {}
    for name in names:
        if len(starting) == at_once:
            oldest = starting.pop(0)
            system.read(oldest, 1)  # Returns when the service has started or died.
            system.close(oldest)
        ours, its = system.pipe()
        pid = system.fork()
        if not pid:
            for pipe in (*starting, ours):
                system.close(pipe)
            become_compute(name, directory, nova_conf, its, system)
        system.close(its)
        starting.append(ours)
        running[pid] = name
    failed = 0
    while running:
        pid, status = system.wait()
        name = running.pop(pid, "")
        code = system.waitstatus_to_exitcode(status)
        if code:
            failed += 1
            print(f"{name} ended with {code}", file=sys.stderr, flush=True)
    return failed


def main() -> int:
    """Write the files of the services and run them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prefix", default="fake")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--last", type=int, required=True)
    parser.add_argument("--at-once", type=int, default=4, help="how many may be starting at a time")
    parser.add_argument("--directory", type=Path, default=Path("/var/lib/nova/fake-computes"))
    parser.add_argument("--nova-conf", default="/etc/nova/nova.conf")
    arguments = parser.parse_args()
    names = compute_names(arguments.prefix, arguments.first, arguments.last)
    for name in names:
        (arguments.directory / name).mkdir(parents=True, exist_ok=True)
        (arguments.directory / name / "nova-compute.conf").write_text(configuration(name, arguments.directory))
    os.chdir(arguments.directory)
    return 1 if run(names, arguments.directory, arguments.nova_conf, arguments.at_once) else 0


if __name__ == "__main__":
    sys.exit(main())
