# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Tests of converged hosts, over ssh.

Run by Molecule after the deployment, or by hand:

    pytest tests/host --ansible-inventory=inventory/lab

Each test runs on every host of the groups it is marked with, controller where it is not marked. The inventory's
variables are rendered by Ansible, because a lab's addresses are expressions. KILONOVA_SECRETS_FILE names the file with
the generated secrets; without it, group_vars/all/secrets.yml of the inventory is used.
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

PROJECT = Path(__file__).resolve().parents[2]
GROUPS = ("controller", "compute")
# What the tests need to know about a host; group_names and the like are Ansible's own.
WANTED = """{{ {
    'groups': group_names,
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
    'server': first_cloud_server_name | default('my_vm'),
    'first': inventory_hostname == groups['controller'][0],
} }}"""


@dataclass
class Site:
    """One host: how to reach it, and what the inventory says about it."""

    name: str
    values: dict[str, Any]
    host: Any = field(repr=False, default=None)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None

    def connect(self) -> Any:
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
    """All hosts of the inventory's groups, with their variables rendered."""
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
        raise pytest.UsageError(f"the inventory {inventory} cannot be read:\n{done.stdout}{done.stderr}")
    return tuple(Site(name, json.loads(text)["msg"]) for name, text in found)


def inventory_of(config: pytest.Config) -> str:
    named = config.getoption("ansible_inventory", None) or str(PROJECT / "inventory" / "lab")
    return str(Path(named).resolve())


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "on(*groups): inventory groups whose hosts the test runs on")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per host of its groups. Only tests that ask for ``site`` or ``host`` have one."""
    if "site" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("on")
    groups = set(marker.args) if marker else {"controller"}
    chosen = [site for site in sites(inventory_of(metafunc.config)) if groups & set(site.groups)]
    metafunc.parametrize("site", chosen, ids=[site.name for site in chosen], scope="session")


@pytest.fixture(scope="session")
def host(site: Site) -> Any:
    """The host under test; replaces the fixture of pytest-testinfra, which does not render inventory variables."""
    return site.connect()


@pytest.fixture(scope="session")
def hosts_sites(request: pytest.FixtureRequest) -> tuple[Site, ...]:
    """All hosts, for tests that compare them."""
    return sites(inventory_of(request.config))


@pytest.fixture(scope="session")
def generated_secrets(request: pytest.FixtureRequest) -> dict[str, str]:
    """Every generated secret by its name."""
    named = os.environ.get("KILONOVA_SECRETS_FILE")
    inventory = Path(inventory_of(request.config))
    directory = inventory if inventory.is_dir() else inventory.parent
    path = Path(named) if named else directory / "group_vars" / "all" / "secrets.yml"
    text = path.read_text()
    assert not text.startswith("$ANSIBLE_VAULT"), f"{path} is encrypted; name a decrypted copy in KILONOVA_SECRETS_FILE"
    found = {name: value for name, value in yaml.safe_load(text).items() if isinstance(value, str) and value}
    assert found, f"there is no secret in {path}"
    return found


@pytest.fixture(scope="session")
def first_controller(hosts_sites: tuple[Site, ...]) -> Site:
    """The host that has the administrator's credentials."""
    return next(site for site in hosts_sites if site.first)


@pytest.fixture(scope="session")
def run_python(host: Any, run_python_of: Callable[[Any], Callable[..., Any]]) -> Callable[..., Any]:
    """Runs a script on the host under test, see ``run_python_of``."""
    return run_python_of(host)


@pytest.fixture(scope="session")
def run_python_of() -> Callable[[Any], Callable[..., Any]]:
    """Runs a script on a host and returns the JSON it prints. ``ARGUMENTS`` in it are the further arguments.

    Script and arguments travel encoded: a secret among them must not appear in the host's process list.
    """

    def on(host: Any) -> Callable[..., Any]:
        def run(script: str, *arguments: object) -> Any:
            source = f"import json\nARGUMENTS = json.loads({json.dumps(list(arguments))!r})\n{script}"
            encoded = base64.b64encode(source.encode()).decode()
            done = host.run(f"/usr/bin/python3 -c 'import base64; exec(base64.b64decode(\"{encoded}\"))'")
            assert done.rc == 0, done.stderr
            return json.loads(done.stdout)

        return run

    return on
