# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Services run, and are enabled for the next boot."""

from __future__ import annotations

from typing import Any

import pytest

CONTROLLER = (
    "mariadb",
    "rabbitmq-server",
    "kilonova-memcached@glance",
    "kilonova-memcached@keystone",
    "kilonova-memcached@neutron",
    "kilonova-memcached@nova",
    "kilonova-memcached@placement",
    "haproxy",
    "keystone",
    "glance-api",
    "placement-api",
    "neutron-api",
    "neutron-ovn-maintenance-worker",
    "neutron-periodic-workers",
    "nova-api",
    "nova-api-metadata",
    "nova-conductor",
    "nova-scheduler",
    "nova-novncproxy",
    "nova-serialproxy",
    "kilonova-serial-redirect",
    "ovn-ovsdb-server-nb",
    "ovn-ovsdb-server-sb",
    "ovn-northd",
)
# Where the cloud has a store.
VOLUMES = ("cinder-api", "cinder-scheduler", "cinder-volume", "cinder-backup", "kilonova-memcached@cinder")
COMPUTE = ("nova-compute", "libvirtd", "neutron-ovn-metadata-agent", "kilonova-serial")
EVERYWHERE = ("openvswitch-switch", "ovn-controller", "networking", "ssh")
# Units of ovn-central and ovn-host are not enabled themselves; the units that start them are.
STATIC = {"enabled", "static", "enabled-runtime", "alias", "indirect"}


def states(host: Any, units: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Return active state and unit file state by unit."""
    done = host.run(f"systemctl show --property=Id,ActiveState,UnitFileState {' '.join(units)}")
    assert done.rc == 0, done.stderr
    found = {}
    for block in done.stdout.strip().split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines())
        found[fields["Id"].removesuffix(".service")] = (fields["ActiveState"], fields["UnitFileState"])
    return found


def assert_running(host: Any, units: tuple[str, ...]) -> None:
    found = states(host, units)
    assert {name: state for name, state in found.items() if state[0] != "active"} == {}
    assert {name: state for name, state in found.items() if state[1] not in STATIC} == {}


@pytest.mark.on("controller")
def test_control_plane_runs(site: Any, host: Any) -> None:
    assert_running(host, CONTROLLER + (VOLUMES if site.storage else ()))


@pytest.mark.on("compute")
def test_compute_runs(host: Any) -> None:
    assert_running(host, COMPUTE)


@pytest.mark.on("compute")
def test_nova_compute_ends_before_its_guests(host: Any) -> None:
    # At shutdown, units stop in reverse order. An inactive target has no effect.
    assert host.run("systemctl is-active virt-guest-shutdown.target").stdout.strip() == "active"
    guests = host.run("systemctl show --property=Before 'machine-qemu*.scope'").stdout
    assert all("virt-guest-shutdown.target" in line.split("=")[1].split() for line in guests.split("\n") if line)
    after = host.run("systemctl show --property=After --value nova-compute").stdout.split()
    assert {"virt-guest-shutdown.target", "libvirt-guests.service"} <= set(after)


@pytest.mark.on("compute")
def test_libvirtd_ends_between_guests_and_their_logs(host: Any) -> None:
    assert "libvirtd.service" in host.check_output("systemctl show --property=After --value libvirt-guests").split()
    assert "virtlogd.service" in host.check_output("systemctl show --property=After --value libvirtd").split()


@pytest.mark.on("controller", "compute")
def test_network_runs(host: Any) -> None:
    assert_running(host, EVERYWHERE)


@pytest.mark.on("controller", "compute")
def test_no_unit_has_failed(host: Any) -> None:
    done = host.run("systemctl list-units --failed --plain --no-legend")
    assert done.stdout.strip() == ""


@pytest.mark.on("controller", "compute")
def test_system_is_running(host: Any) -> None:
    assert host.run("systemctl is-system-running").stdout.strip() == "running"


@pytest.mark.on("controller", "compute")
def test_no_service_restarts_again_and_again(host: Any) -> None:
    done = host.run("systemctl show --property=Id,NRestarts --type=service --state=active '*'")
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in done.stdout.strip().split("\n\n")]
    assert {block["Id"]: block["NRestarts"] for block in blocks if int(block.get("NRestarts", 0)) > 3} == {}


@pytest.mark.on("controller", "compute")
def test_no_unit_lost_the_directory_that_it_shares(host: Any) -> None:
    # The services of Nova share /run/nova and /run/lock/nova.
    done = host.run("systemctl show --property=RuntimeDirectoryPreserve 'nova-*.service' 'neutron-*.service'")
    assert set(done.stdout.split()) == {"RuntimeDirectoryPreserve=yes"}
    assert host.run("journalctl --no-pager --quiet --identifier=systemd --grep=RUNTIME_DIRECTORY").stdout == ""


@pytest.mark.on("controller", "compute")
def test_no_guard_against_starting_services_is_left(host: Any) -> None:
    assert not host.file("/usr/sbin/policy-rc.d").exists


@pytest.mark.on("controller")
@pytest.mark.parametrize("unit", ["keystone", "placement-api", "nova-api"])
def test_workers_share_what_the_first_process_imported(host: Any, unit: str) -> None:
    # If the import fails, uWSGI only logs a line, and its first process stays small.
    main = host.run(f"systemctl show --property=MainPID --value {unit}").stdout.strip()
    resident = host.run(f"awk '/^VmRSS:/ {{ print $2 }}' /proc/{main}/status").stdout.strip()
    assert int(resident) > 40 * 1024
