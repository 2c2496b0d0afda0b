# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Tests of deployed hosts, over ssh.

Molecule runs them after the deployment. By hand:

    pytest tests/host --ansible-inventory=inventory/lab

Each test runs on every host of the groups in its mark, by default lead: the first controller. Ansible evaluates the
variables of the inventory, because addresses of a lab are expressions. Set KILONOVA_SECRETS_FILE if the generated
secrets are not in group_vars/all/secrets.yml of the inventory.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml

from tests.secret import secrets_of

PROJECT = Path(__file__).resolve().parents[2]
GROUPS = ("controller", "compute", "storage")
# Variables of a host that tests use.
WANTED = """{{ {
    'groups': group_names + (['lead'] if inventory_hostname == groups['controller'][0] else []),
    'address': ansible_host | default(inventory_hostname),
    'user': ansible_user | default('root'),
    'port': ansible_port | default(22),
    'key': ansible_ssh_private_key_file | default(''),
    'arguments': ansible_ssh_common_args | default(''),
    'management_address': cloud_management_address | default(ansible_host) | default(inventory_hostname),
    'api_address': cloud_api_address | default(hostvars[groups['controller'][0]].ansible_host)
                   | default(groups['controller'][0]),
    'bridge': flat_network_bridge | default('br0'),
    'flat_interface': flat_interface | default('eth0'),
    'tunnel_interface': ovn_chassis_tunnel_interface | default(''),
    'lab_interfaces': lab_interfaces | default([]) | map(attribute='name') | list,
    'fixed_range': fixed_range | default('192.168.1.0/24'),
    'fixed_gateway': fixed_gateway | default(''),
    'authority': cloud_ca_path | default('/etc/kilonova/ca.pem'),
    'local_directory': clients_local_directory | default(''),
    'server': first_cloud_server_name | default('my_vm'),
    'guest_user': guest_image_user | default('guest'),
    'storage': (groups['storage'] | default([])) + (ceph_existing | default({}) | list),
    'first': inventory_hostname == groups['controller'][0],
    'clustered': groups['controller'] | length > 1,
} }}"""

# Before scripts that run on the controller with the credentials of the administrator.
CLOUD = """
import time, openstack
cloud = openstack.connect(cloud="admin")
nova = cloud.compute
nova.default_microversion = "2.79"

def wait(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} is not so after {seconds} s")
        time.sleep(1)
    return answer

def settled(server, status="ACTIVE"):
    def look():
        now = nova.get_server(server)
        if now.status == "ERROR":
            raise SystemExit(f"{now.name} is in ERROR: {now.fault}")
        return now if now.status == status and not now.task_state else None
    return wait(look, 300, f"{server} is {status}")

def console(server):
    return nova.get_server_console_output(server)["output"] or ""

def ready(server):
    try:
        wait(lambda: "kilonova-guest: ready" in console(server), 300, f"{server.name}: ready")
    except SystemExit as error:
        port = next(cloud.network.ports(device_id=server.id))
        raise SystemExit(f"{error} on {server.compute_host}, port {port.id} {port.mac_address} {port.status}, "
                         f"console:\\n{console(server)[-1500:]}")

def address(server):
    return next(entry["addr"] for entries in server.addresses.values() for entry in entries)
"""


@dataclass
class Site:
    """A host with its variables."""

    name: str
    values: dict[str, Any]
    host: Any = field(repr=False, default=None)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None

    def connect(self) -> Any:
        """Return the testinfra host."""
        if self.host is None:
            self.host = testinfra.get_host(
                f"ssh://{self.user}@{self.address}:{self.port}",
                ssh_identity_file=self.key or None,
                ssh_extra_args=" ".join(self.arguments.split()) or None,
                sudo=self.user != "root",
            )
        return self.host


@functools.cache
def sites(inventory: str) -> tuple[Site, ...]:
    """Return all hosts of the inventory, with their variables evaluated."""
    command = ["ansible", "-i", inventory, ":".join(GROUPS), "-m", "ansible.builtin.debug", "-a", f"msg={WANTED}"]
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "minimal",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=PROJECT, check=False)
    found = re.findall(r"^(\S+) \| SUCCESS => (\{.*?^\})", done.stdout, re.MULTILINE | re.DOTALL)
    if done.returncode != 0 or not found:
        raise pytest.UsageError(f"cannot read the inventory {inventory}:\n{done.stdout}{done.stderr}")
    return tuple(Site(name, json.loads(text)["msg"]) for name, text in found)


def inventory_of(config: pytest.Config) -> str:
    """Return the path of the inventory."""
    named = config.getoption("ansible_inventory", None) or str(PROJECT / "inventory" / "lab")
    return str(Path(named).resolve())


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "on(*groups): inventory groups whose hosts the test runs on")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat each test that uses ``site`` or ``host`` on every host of its groups."""
    if "site" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("on")
    groups = set(marker.args) if marker else {"lead"}
    chosen = [site for site in sites(inventory_of(metafunc.config)) if groups & set(site.groups)]
    metafunc.parametrize("site", chosen, ids=[site.name for site in chosen], scope="session")


@pytest.fixture(scope="session")
def host(site: Site) -> Any:
    """The host under test. Replaces the fixture of pytest-testinfra, which does not evaluate variables."""
    return site.connect()


@pytest.fixture(scope="session")
def hosts_sites(request: pytest.FixtureRequest) -> tuple[Site, ...]:
    """All hosts."""
    return sites(inventory_of(request.config))


@pytest.fixture(scope="session")
def generated_secrets(request: pytest.FixtureRequest) -> dict[str, str]:
    """All generated secrets by name."""
    named = os.environ.get("KILONOVA_SECRETS_FILE")
    inventory = Path(inventory_of(request.config))
    directory = inventory if inventory.is_dir() else inventory.parent
    path = Path(named) if named else directory / "group_vars" / "all" / "secrets.yml"
    text = path.read_text()
    assert not text.startswith("$ANSIBLE_VAULT"), f"{path} is encrypted; set KILONOVA_SECRETS_FILE to a decrypted copy"
    found = secrets_of(yaml.safe_load(text))
    assert found, f"there is no secret in {path}"
    return found


@pytest.fixture(scope="session")
def first_controller(hosts_sites: tuple[Site, ...]) -> Site:
    """The controller with the credentials of the administrator."""
    return next(site for site in hosts_sites if site.first)


@pytest.fixture(scope="session")
def gateway(hosts_sites: tuple[Site, ...], first_controller: Site) -> Site:
    """The controller that reaches guests on the flat network: with several, the one that holds their gateway now."""
    for site in hosts_sites:
        if "controller" in site.groups:
            shown = site.connect().run("ip -oneline -4 address show dev %s to %s", site.bridge, site.fixed_range)
            if shown.stdout.strip():
                return site
    return first_controller


@pytest.fixture(scope="session")
def run_python(host: Any, run_python_of: Callable[[Any], Callable[..., Any]]) -> Callable[..., Any]:
    """Run a script on the host under test, see ``run_python_of``."""
    return run_python_of(host)


@pytest.fixture(scope="session")
def run_python_of() -> Callable[[Any], Callable[..., Any]]:
    """Run a script on a host and return the JSON it prints, if any. The script gets further arguments as ``ARGUMENTS``.

    Script and arguments are encoded, to keep secrets out of the process list of the host.
    """

    def on(host: Any) -> Callable[..., Any]:
        def run(script: str, *arguments: object) -> Any:
            source = f"import json\nARGUMENTS = json.loads({json.dumps(list(arguments))!r})\n{script}"
            encoded = base64.b64encode(source.encode()).decode()
            done = host.run(f"/usr/bin/python3 -c 'import base64; exec(base64.b64decode(\"{encoded}\"))'")
            assert done.rc == 0, done.stderr
            return json.loads(done.stdout or "null")

        return run

    return on


@pytest.fixture(scope="session")
def on_cloud(run_python_of: Callable[[Any], Callable[..., Any]], first_controller: Site) -> Callable[..., Any]:
    """Run a script that uses the API on the controller, after ``CLOUD``."""
    run = run_python_of(first_controller.connect())
    return lambda script, *arguments: run(CLOUD + script, *arguments)
