# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Killed runs leave no duplicates, nothing half done, and no key too many."""

from __future__ import annotations

from typing import Any

import pytest

from tests.host.test_rotation import path_before

# Queries for things that must exist once. Rows are names and how often they occur.
ONCE = {
    "domain": "SELECT name, COUNT(*) FROM keystone.project WHERE is_domain = 1 GROUP BY name",
    "project": "SELECT CONCAT(domain_id, '/', name), COUNT(*) FROM keystone.project WHERE is_domain = 0 GROUP BY 1",
    "user": "SELECT CONCAT(domain_id, '/', name), COUNT(*) FROM keystone.local_user GROUP BY 1",
    "role": "SELECT name, COUNT(*) FROM keystone.role GROUP BY name",
    "service": "SELECT type, COUNT(*) FROM keystone.service GROUP BY type",
    "endpoint": """SELECT CONCAT_WS(' ', type, interface, region_id), COUNT(*) FROM keystone.endpoint
                   JOIN keystone.service ON service.id = service_id GROUP BY 1""",
    "cell": "SELECT name, COUNT(*) FROM nova_api.cell_mappings GROUP BY name",
    "mapped host": "SELECT host, COUNT(*) FROM nova_api.host_mappings GROUP BY host",
    "compute node": "SELECT host, COUNT(*) FROM nova.compute_nodes WHERE deleted = 0 GROUP BY host",
    "nova service": "SELECT CONCAT(host, ' ', `binary`), COUNT(*) FROM nova.services WHERE deleted = 0 GROUP BY 1",
    "flavor": "SELECT name, COUNT(*) FROM nova_api.flavors GROUP BY name",
    "keypair": "SELECT name, COUNT(*) FROM nova_api.key_pairs GROUP BY name",
    "server": "SELECT display_name, COUNT(*) FROM nova.instances WHERE deleted = 0 GROUP BY 1",
    "image": "SELECT name, COUNT(*) FROM glance.images WHERE deleted = 0 AND os_hidden = 0 GROUP BY name",
    "network": "SELECT name, COUNT(*) FROM neutron.networks GROUP BY name",
    "subnet": "SELECT CONCAT(network_id, ' ', cidr), COUNT(*) FROM neutron.subnets GROUP BY 1",
    "security group": "SELECT CONCAT(project_id, '/', name), COUNT(*) FROM neutron.securitygroups GROUP BY 1",
    "security group rule": """SELECT CONCAT_WS(' ', security_group_id, direction, ethertype, protocol, port_range_min,
                              port_range_max, remote_ip_prefix, remote_group_id), COUNT(*)
                              FROM neutron.securitygrouprules GROUP BY 1""",
}
# Temporary names of Ansible, of modules and of dpkg.
HALF_WRITTEN = (
    ".ansible_tmp*",
    "*.kilonova",
    "*.kilonova.new",
    "*.kilonova-new",
    ".*.partial",
    ".building-*",
    "*.dpkg-new",
    "*.dpkg-tmp",
    "config_files-*",
)
PLACES = "/boot /etc /opt /root /srv /usr /var"
WRITTEN_KEY = 44  # characters of a Fernet key
# Files of modules in /run/kilonova.
KEPT = ("tokens", "verified-compute.json")


def query(host: Any, statement: str) -> list[list[str]]:
    done = host.run("mariadb --batch --skip-column-names --execute=%s", " ".join(statement.split()))
    assert done.rc == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.mark.parametrize("kind", ONCE)
def test_nothing_is_there_twice(host: Any, kind: str) -> None:
    found = {name: int(number) for name, number in query(host, ONCE[kind])}
    assert found, f"there is no {kind} at all"
    assert {name: number for name, number in found.items() if number > 1} == {}


def test_two_cells(host: Any) -> None:
    assert sorted(query(host, "SELECT name FROM nova_api.cell_mappings")) == [["cell0"], ["cell1"]]


def test_one_server_of_its_name_and_no_probe(site: Any, host: Any) -> None:
    names = [row[0] for row in query(host, "SELECT display_name FROM nova.instances WHERE deleted = 0")]
    assert names.count(site.server) == 1
    assert [name for name in names if "probe" in name] == []


def test_no_upload_is_unfinished(host: Any) -> None:
    states = {row[0] for row in query(host, "SELECT status FROM glance.images WHERE deleted = 0")}
    assert states == {"active"}


@pytest.mark.on("compute")
def test_no_probe_domain_is_left(host: Any) -> None:
    assert [name for name in host.check_output("virsh list --all --name").split() if "probe" in name] == []


@pytest.mark.on("controller", "compute")
def test_no_file_is_half_written(host: Any) -> None:
    names = " -o ".join(f"-name '{name}'" for name in HALF_WRITTEN)
    assert host.check_output(f"find {PLACES} -xdev \\( {names} \\) -print") == ""


@pytest.mark.on("controller", "compute")
def test_search_finds_half_written_files(host: Any) -> None:
    """The search above would find nothing in missing directories."""
    assert "/etc/nova/nova.conf" in host.check_output(f"find {PLACES} -xdev -name nova.conf -print").splitlines()


@pytest.mark.on("controller", "compute")
def test_dpkg_has_finished(host: Any) -> None:
    done = host.run("dpkg --audit")
    assert (done.rc, done.stdout) == (0, "")
    assert [name for name in host.file("/var/lib/dpkg/updates").listdir() if name.isdigit()] == []


@pytest.mark.on("controller", "compute")
def test_apt_would_change_nothing(host: Any) -> None:
    """APT would complete half-installed packages."""
    assert host.run("apt-get check").rc == 0
    assert "0 newly installed" in host.check_output("apt-get --simulate --fix-broken install")


@pytest.mark.on("controller", "compute")
def test_no_change_of_the_network_waits_to_be_confirmed(host: Any) -> None:
    assert host.file("/var/lib/kilonova/bridge").is_directory
    assert not host.file("/var/lib/kilonova/bridge/armed").exists
    assert host.run("systemctl cat kilonova-bridge-rollback-boot.service").rc != 0
    assert host.check_output("systemctl list-timers --all --no-legend 'kilonova-bridge-*'") == ""


@pytest.mark.on("controller")
@pytest.mark.parametrize("directory", ["/etc/keystone/fernet-keys", "/etc/keystone/credential-keys"])
def test_keys_are_whole(host: Any, directory: str) -> None:
    names = [name for name in host.file(directory).listdir() if name.isdigit()]
    assert "0" in names and max(map(int, names)) % 1000 == 0
    assert {host.file(f"{directory}/{name}").size for name in names} == {WRITTEN_KEY}


@pytest.mark.on("controller")
def test_keys_were_made_once(host: Any) -> None:
    """A deployment makes two, and a rotation, which was killed as well, another one that signs."""
    names = {int(name) for name in host.file("/etc/keystone/credential-keys").listdir() if name.isdigit()}
    assert {name for name in names if name % 1000 == 0} == ({0, 1000, 2000} if path_before() else {0, 1000})


@pytest.mark.on("controller")
def test_no_tool_of_a_service_is_at_work(host: Any) -> None:
    """A running tool keeps its configuration, with passwords, in a directory below /run/kilonova."""
    directory = host.file("/run/kilonova")
    # Missing after a reboot.
    names = directory.listdir() if directory.exists else []
    others = [name for name in names if name not in KEPT and not name.endswith(".lock")]
    assert others == []
