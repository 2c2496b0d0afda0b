# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Units may do what their sandbox says and no more; see docs/operate/sandbox.md."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.host.conftest import PROJECT

PROFILES: dict[str, dict[str, Any]] = yaml.safe_load((PROJECT / "roles/service/vars/main.yml").read_text())[
    "service_sandbox_profiles"
]
CONTROLLER = {
    "glance-api": "user",
    "haproxy": "root",
    "keystone": "user",
    "kilonova-memcached@glance": "user",
    "kilonova-memcached@keystone": "user",
    "kilonova-memcached@neutron": "user",
    "kilonova-memcached@nova": "user",
    "kilonova-memcached@placement": "user",
    "mariadb": "user",
    "neutron-api": "user",
    "neutron-ovn-maintenance-worker": "user",
    "neutron-periodic-workers": "user",
    "nova-api": "user",
    "nova-api-metadata": "user",
    "nova-conductor": "user",
    "nova-novncproxy": "user",
    "nova-scheduler": "user",
    "nova-serialproxy": "user",
    "ovn-northd": "root",
    "ovn-ovsdb-server-nb": "root",
    "ovn-ovsdb-server-sb": "root",
    "placement-api": "user",
    "rabbitmq-server": "user",
}
# Where the cloud has a store.
VOLUMES = {
    "cinder-api": "user",
    "cinder-backup": "user",
    "cinder-scheduler": "user",
    "cinder-volume": "user",
    "kilonova-memcached@cinder": "user",
}
# Where there are several controllers.
CLUSTER = {"keepalived": "root", "kilonova-galera": "user", "kilonova-ovn-relay": "root"}
COMPUTE = {
    "kilonova-serial": "user",
    "libvirtd": "privileged",
    "neutron-ovn-metadata-agent": "privileged",
    "nova-compute": "privileged",
}
EVERYWHERE = {"ovn-controller": "switch", "ovs-vswitchd": "switch", "ovsdb-server": "switch"}
# Where Open vSwitch forwards in user space.
USER_SPACE = {"kilonova-devices": "root"}
# Where a unit differs from its profile (sandbox_options).
OTHERWISE: dict[str, set[str]] = {
    "ceph-osd": {"PrivateDevices", "ProtectClock"},
    "kilonova-devices": {"ProtectSystem"},
    "kilonova-galera": {"ProtectSystem"},
    "mariadb": {"MemoryDenyWriteExecute", "AmbientCapabilities"},
    "rabbitmq-server": {"MemoryDenyWriteExecute"},
}
# virtlogd holds guests' console logs open, so that a run must not restart it.
WITHOUT = {"virtlogd"}
# They start root's helpers, mount, or start guests.
EXPOSED = {unit for unit, profile in COMPUTE.items() if profile == "privileged"}


def shown(host: Any, unit: str) -> dict[str, str]:
    """Return the properties of a unit."""
    done = host.run(f"systemctl show --all {unit}.service")
    assert done.rc == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def assert_sandboxed(host: Any, units: dict[str, str]) -> None:
    """Compare what systemd shows with the profiles. It expands lists and resolves them in its own order."""
    different = {}
    for unit, profile in units.items():
        properties = shown(host, unit)
        for key, value in PROFILES[profile].items():
            if key in OTHERWISE.get(unit.partition("@")[0], ()):
                continue
            found = properties.get(key, "")
            if isinstance(value, bool):
                same = found == ("yes" if value else "no")
            elif key in ("CapabilityBoundingSet", "AmbientCapabilities", "RestrictAddressFamilies", "SystemCallFilter"):
                same = bool(found) or value == []
            else:
                same = found.lower() in (value.lower(), "1" if value == "EPERM" else value.lower())
            if not same:
                different[f"{unit}: {key}"] = found
    assert different == {}


def assert_not_exposed(host: Any, units: dict[str, str]) -> None:
    done = host.run("systemd-analyze security --no-pager")
    assert done.rc == 0, done.stderr
    levels = {line.split()[0].removesuffix(".service"): float(line.split()[1]) for line in done.stdout.splitlines()[1:]}
    assert {unit: levels[unit] for unit in units if unit not in EXPOSED and levels[unit] > 5.0} == {}
    assert {unit: levels[unit] for unit in units if unit in EXPOSED and levels[unit] > 8.5} == {}


def of_controller(site: Any) -> dict[str, str]:
    """The units of a controller of this cloud."""
    return CONTROLLER | (VOLUMES if site.storage else {}) | (CLUSTER if site.clustered else {})


@pytest.mark.on("controller")
def test_units_of_controllers(site: Any, host: Any) -> None:
    assert_sandboxed(host, of_controller(site))
    assert_not_exposed(host, of_controller(site))


@pytest.mark.on("compute")
def test_units_of_computes(host: Any) -> None:
    assert_sandboxed(host, COMPUTE)
    assert_not_exposed(host, COMPUTE)


def of_storage(host: Any) -> dict[str, str]:
    """The daemons of Ceph on a host, which are named after it and after disks."""
    listed = host.check_output("systemctl list-units --type=service --state=running --plain --no-legend 'ceph-*@*'")
    return {line.split()[0].removesuffix(".service"): "root" for line in listed.splitlines()}


@pytest.mark.on("storage")
def test_units_of_storage_hosts(host: Any) -> None:
    assert of_storage(host)
    assert_sandboxed(host, of_storage(host))
    assert_not_exposed(host, of_storage(host))


@pytest.mark.on("controller", "compute")
def test_units_of_all_hosts(host: Any) -> None:
    units = EVERYWHERE | {unit: kind for unit, kind in USER_SPACE.items() if host.service(unit).is_running}
    assert_sandboxed(host, units)
    assert_not_exposed(host, units)


@pytest.mark.on("controller", "compute")
def test_every_unit_that_runs_has_a_sandbox(site: Any, host: Any) -> None:
    """Units of Kilonova, and those of others to which it adds something."""
    listed = host.check_output("systemctl list-units --type=service --state=running --plain --no-legend")
    names = " ".join(line.split()[0] for line in listed.splitlines())
    blocks = host.check_output(f"systemctl show --property=Id,FragmentPath,DropInPaths {names}").split("\n\n")
    shown = [dict(line.split("=", 1) for line in block.splitlines()) for block in blocks]
    ours = {
        unit["Id"].removesuffix(".service")
        for unit in shown
        if "/kilonova" in unit["DropInPaths"] or "kilonova" in unit["FragmentPath"]
    }
    known = {*EVERYWHERE, *USER_SPACE, *(of_controller(site) if "controller" in site.groups else ())}
    known |= {*COMPUTE} if "compute" in site.groups else set()
    known |= {*of_storage(host)} if "storage" in site.groups else set()
    assert ours - known - WITHOUT == set()


@pytest.mark.on("controller")
def test_processes_run_in_it(site: Any, host: Any) -> None:
    """What systemd shows is what it would start. These units restarted with their sandbox."""
    unconfined = {}
    for unit in of_controller(site):
        main = host.check_output(f"systemctl show --property=MainPID --value {unit}")
        status = dict(line.split(":\t", 1) for line in host.check_output(f"cat /proc/{main}/status").splitlines())
        if (status["NoNewPrivs"], status["Seccomp"]) != ("1", "2"):
            unconfined[unit] = (status["NoNewPrivs"], status["Seccomp"])
    assert unconfined == {}


@pytest.mark.on("compute")
def test_the_helpers_of_root_still_work(host: Any) -> None:
    """A filter of system calls can imply NoNewPrivileges, with which sudo gives no rights."""
    main = host.check_output("systemctl show --property=MainPID --value nova-compute")
    assert "NoNewPrivs:\t0" in host.check_output(f"cat /proc/{main}/status")


@pytest.mark.on("controller", "compute")
def test_no_unit_was_refused_what_it_needs(host: Any) -> None:
    """systemd logs settings that it does not know, and seccomp kills with SIGSYS."""
    journal = "journalctl --no-pager --quiet --boot --identifier=systemd"
    assert host.run(f"{journal} --grep='kilonova-sandbox|status=31/SYS'").stdout == ""
