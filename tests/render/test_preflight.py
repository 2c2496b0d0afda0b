# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Preflight with the variables of the sample inventories, on hosts that are looked at for the first time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins import loader as plugins
from ansible.template import trust_as_template

from plugins.action.preflight import ActionModule
from tests.render import rendering
from tests.render.templating import templar_with


def interface(*addresses: str) -> dict[str, Any]:
    return {"mac": "", "mtu": 1500, "up": True, "kind": "", "master": "", "ports": [], "addresses": list(addresses)}


FACTS: dict[str, Any] = {
    "user": "root",
    "os": {"id": "debian", "version": "13", "name": "Debian GNU/Linux 13 (trixie)"},
    "memory_mib": 16384,
    "disk_free_mib": {"/": 20000, "/var": 20000},
    "default_interface": "eth0",
    "listeners": [],
    "kvm": True,
    "apparmor": True,
    "kvm_reason": "",
    "ovs_kernel": False,
    "clock": 0.0,
    "pid1": "systemd",
    "apt": True,
    "deployed": False,
    "record": {},
    "ssh_host_key": "ssh-ed25519 AAAA root@sample",
    "ovs_system_id": "",
}


class Looked(ActionModule):
    """preflight, with facts of a made-up host."""

    facts: dict[str, Any]

    def _execute_module(self, *positional: Any, **named: Any) -> dict[str, Any]:
        return {"facts": self.facts}


class Inventory(dict[str, Any]):
    """Variables of hosts, without some, and with changes to those of some."""

    def __init__(self, hostvars: Any, absent: set[str], changes: dict[str, dict[str, Any]]) -> None:
        names = {host: set(hostvars[host]) - absent for host in hostvars}
        super().__init__({host: {**dict.fromkeys(names[host], ""), **changes.get(host, {})} for host in hostvars})


def look(
    inventory: str,
    host: str,
    arguments: dict[str, Any] | None = None,
    facts: dict[str, Any] | None = None,
    without: set[str] | None = None,
    batches: dict[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """The result of preflight with other variables, and without some."""
    sample = rendering.load(inventory)
    absent = (without or set()) | {"preflight_facts"}
    variables = {name: value for name, value in sample.variables(host).items() if name not in absent} | changes
    changed = {name: {"cloud_compute_batch": value} for name, value in (batches or {}).items()}
    changed[host] = {**changed.get(host, {}), **changes}
    variables["hostvars"] = Inventory(variables["hostvars"], absent, changed)
    templar = templar_with(sample.loader, variables)
    given: dict[str, Any] = {
        name: 0 for name in ("minimum_memory_mib", "minimum_disk_mib", "minimum_disk_deployed_mib")
    }
    given |= {"maximum_clock_skew": 10**12, "ports": [], "known_tags": ["nova"], "secrets_path": "/nonexistent/x.yml"}
    given |= {"secrets_names": templar.template(variables["secrets_names"]), **(arguments or {})}
    task = Task.load({"preflight": given}, variable_manager=sample.variable_manager, loader=sample.loader)
    context = PlayContext(play=sample.play)
    connection = plugins.connection_loader.get("ansible.builtin.local", context)
    action = Looked(task, connection, context, sample.loader, templar, plugins)
    address = templar.template(trust_as_template("{{ cloud_management_address }}"))
    interfaces = {"eth0": interface(f"{address}/24"), "eth1": interface(), "eth2": interface()}
    action.facts = FACTS | {"interfaces": interfaces} | (facts or {})
    return action.run(task_vars=variables)


def problems(inventory: str, host: str, **changes: Any) -> list[str]:
    """The problems in preflight's message, none where it passes."""
    result = look(inventory, host, **changes)
    return re.findall(r"^  \d+\. (.*)$", str(result["msg"]), re.MULTILINE) if result.get("failed") else []


ADDRESSES = ["192.0.2.11", "192.0.2.12", "192.0.2.13"]
CLUSTERED = {"arguments": {"images_are_shared": True}, "cloud_controller_addresses": ADDRESSES}


def test_what_several_controllers_need() -> None:
    for host in ("ctl1", "ctl2", "ctl3"):
        assert problems("clustered", host, **CLUSTERED) == []
        (found,) = problems("clustered", host, **CLUSTERED, cloud_api_address="192.0.2.12")
        assert found.startswith("cloud_api_address = '192.0.2.12': this is the address of one controller")
    (found,) = problems("clustered", "ctl1")
    assert found.startswith("glance_store_shared = False: each controller would have its own images")
    assert problems("clustered", "ctl2") == []


@pytest.mark.parametrize("inventory", ["all_in_one", "multihost"])
def test_sample_inventories_pass(inventory: str) -> None:
    for host in rendering.load(inventory).hosts():
        assert problems(inventory, host) == []


def test_a_way_out_that_the_default_route_does_not_take() -> None:
    (found,) = problems("multihost", "ctl1", public_interface="eth1")
    assert "public_interface = 'eth1': this host's default route leaves by eth0" in found
    assert problems("multihost", "cmp1", public_interface="eth1") == []


def test_each_tunnel_variable_is_looked_at() -> None:
    (found,) = problems("multihost", "cmp1", ovn_chassis_bridge_address="")
    assert "ovn_chassis_bridge_address = '': tunnels over ovn_chassis_tunnel_interface = eth2" in found
    (found,) = problems("multihost", "cmp1", ovn_chassis_tunnel_interface="eth7")
    assert "ovn_chassis_tunnel_interface = 'eth7': this host has no interface of that name" in found
    (found,) = problems("multihost", "cmp1", ovn_chassis_tunnel_address="192.0.2.21")
    assert "ovn_chassis_tunnel_address = '192.0.2.21': the kernel of this host has no openvswitch module" in found


ONE_SECRET = {"nova_password"}
DEPLOYED = {"deployed": True, "record": {"secrets": ["nova_password"], "variables": {"fixed_range": "192.168.9.0/24"}}}


def test_secrets_of_a_deployed_cloud_are_not_generated_again() -> None:
    deployed = {"deployed": True, "record": {"secrets": ["nova_password"]}}
    (found,) = problems("all_in_one", "cloud1", facts=deployed, without=ONE_SECRET)
    assert found.startswith("This host is deployed, and secrets that it uses are not given (nova_password)")
    assert problems("all_in_one", "cloud1", without=ONE_SECRET) == []
    regenerate = {"secrets_regenerate": True}
    assert problems("all_in_one", "cloud1", facts=deployed, without=ONE_SECRET, arguments=regenerate) == []


def test_secrets_in_a_file_outside_of_the_inventory_are_given(tmp_path: Path) -> None:
    path = tmp_path / "secrets.yml"
    arguments = {"secrets_path": str(path)}
    path.write_text("nova_password: long enough a password\n")
    assert problems("all_in_one", "cloud1", facts={"deployed": True}, without=ONE_SECRET, arguments=arguments) == []
    path.write_text("nova_password: 12345678\n")
    (found,) = problems("all_in_one", "cloud1", without=ONE_SECRET, arguments=arguments)
    assert found.startswith("nova_password = (hidden): YAML reads it as a whole number")
    path.write_text("- nova_password\n")
    (found,) = problems("all_in_one", "cloud1", without=ONE_SECRET, arguments=arguments)
    assert "does not hold variables" in found


def test_secrets_without_a_directory_to_keep_them_in() -> None:
    (found,) = problems("all_in_one", "cloud1", arguments={"secrets_path": "None/group_vars/all/secrets.yml"})
    assert found.startswith("secrets_path = 'None/group_vars/all/secrets.yml': the secrets need an absolute path")


def test_a_value_may_contain_a_secret_that_is_yet_to_be_generated() -> None:
    changes = {"catalog_users": trust_as_template("{{ [{'name': 'x', 'password': nova_password}] }}")}
    assert problems("all_in_one", "cloud1", without=ONE_SECRET, **changes) == []
    (found,) = problems("all_in_one", "cloud1", catalog_users=trust_as_template("{{ missing_password }}"))
    assert found.startswith("catalog_users: its value cannot be worked out")


def test_secrets_are_not_generated_in_a_run_without_the_controller() -> None:
    limited = {"ansible_play_hosts_all": ["cmp1"], "ansible_play_hosts": ["cmp1"]}
    (found,) = problems("multihost", "cmp1", without=ONE_SECRET, **limited)
    assert "this run leaves out ctl1" in found


def test_what_a_deployed_cloud_cannot_change() -> None:
    (found,) = problems("multihost", "cmp1", facts=DEPLOYED)
    assert found.startswith("fixed_range = '192.168.1.0/24': the cloud was deployed with 192.168.9.0/24")


def test_misspelt_tags_are_reported_by_one_host() -> None:
    tags = {"ansible_run_tags": ["nvoa"]}
    (found,) = problems("multihost", "ctl1", **tags)
    assert found.startswith("--tags = 'nvoa': no task has this tag")
    assert problems("multihost", "cmp1", **tags) == []
    # The first host that answers reports it.
    (found,) = problems("multihost", "cmp1", ansible_play_hosts=["cmp1", "cmp2"], **tags)
    assert found.startswith("--tags = 'nvoa'")


def test_batches_are_those_of_the_controller() -> None:
    (found,) = problems("multihost", "cmp1", batches={"cmp1": 2, "ctl1": "100%"})
    assert found.startswith("cloud_compute_batch = 2: it must be the same on all hosts, and is '100%' on ctl1")
    assert problems("multihost", "cmp1", batches={"cmp1": 2, "ctl1": 2}) == []
    (found,) = problems("multihost", "cmp1", batches={"cmp1": 0, "ctl1": 0})
    assert "neither a number of computes from 1 nor a percentage" in found


@pytest.mark.parametrize(
    ("name", "value", "beginning"),
    [
        ("nova_api_workers", 0, "nova_api_workers = 0: this must be at least 1"),
        ("bridge_mtu", 20, "bridge_mtu = 20: this must be from 1280 to 9216"),
        ("first_cloud_dns_servers", ["dns"], "first_cloud_dns_servers = 'dns': a name server"),
        ("cloud_region", "", "cloud_region = '': this must not be empty"),
        ("libvirt_qemu_conf", {"user": None}, "libvirt_qemu_conf.user = None: libvirt has no empty value"),
        ("nova_conf_overrides", {"DEFAULT": None}, "nova_conf_overrides: section 'DEFAULT' is a null"),
        ("first_cloud_security_group_rules", [{"protocol": "tpc"}], "first_cloud_security_group_rules = {'protocol"),
        ("host_apt_proxy", "http://proxy", "host_apt_proxy: this variable is now called base_apt_proxy"),
        ("nova_password", "short", "nova_password = (hidden): it has fewer than 8 characters"),
        ("secrets_pki_seed", "x" * 31, "secrets_pki_seed = (hidden): it has fewer than 32 characters"),
        ("secrets_pki_trusted_seeds", ["x" * 31], "secrets_pki_trusted_seeds[0] = (hidden): it has fewer than 32"),
        ("guest_image_console_password", 1234, "guest_image_console_password = (hidden): YAML reads it as"),
        ("nova_api_worker", 2, "nova_api_worker: no role knows a variable of this name"),
    ],
)
def test_what_an_inventory_may_get_wrong(name: str, value: Any, beginning: str) -> None:
    (found,) = problems("all_in_one", "cloud1", **{name: value})
    assert found.startswith(beginning)


def test_the_flavor_of_the_first_server_is_missing() -> None:
    things = {"first_cloud_flavors": [{"name": "m1.tiny"}], "first_cloud_images": [{"name": "guest"}]}
    server = {
        "first_cloud_server_name": "my_vm",
        "first_cloud_server_flavor": "m2",
        "first_cloud_server_image": "guest",
    }
    (found,) = problems("multihost", "ctl1", **things, **server)
    assert found.startswith("first_cloud_server_flavor = 'm2': first_cloud_flavors has none of this name")
    assert problems("multihost", "cmp1", **things, **server) == []


def test_kvm_is_asked_for_where_there_is_none() -> None:
    (found,) = problems("multihost", "cmp1", facts={"kvm": False}, libvirt_virt_type="kvm")
    assert found.startswith("libvirt_virt_type = 'kvm': KVM is not usable on this host")


def test_without_the_rights_of_root_nothing_else_is_reported() -> None:
    (found,) = problems("all_in_one", "cloud1", facts={"user": "debian", "memory_mib": 0}, bridge_mtu=20)
    assert found.startswith("ansible_user = 'debian': tasks run as this user on the host, and must run as root")


def test_null_in_overrides_is_noted() -> None:
    result = look("all_in_one", "cloud1", nova_conf_overrides={"DEFAULT": {"debug": None}})
    assert not result.get("failed")
    assert any(note.startswith("nova_conf_overrides: [DEFAULT] debug is empty (null)") for note in result["notes"])


def test_facts_that_earlier_tasks_set_are_not_the_inventory_s() -> None:
    assert problems("all_in_one", "cloud1", preflight_result={"failed": False}, secrets_generated={}) == []


@pytest.mark.parametrize("inventory", ["all_in_one", "clustered", "multihost", "storage"])
def test_a_first_run_looks_at_hosts_before_there_are_secrets(inventory: str) -> None:
    sample = rendering.load(inventory)
    task = yaml.safe_load((rendering.PROJECT / "roles/preflight/tasks/main.yml").read_text())[0]
    for host in sample.hosts():
        variables = sample.variables(host)
        secrets = sample.templar(host).template(variables["secrets_names"])
        first = {name: value for name, value in variables.items() if name not in secrets}
        templar = templar_with(sample.loader, first)
        for value in task["preflight"].values():
            templar.template(trust(value))


def trust(value: Any) -> Any:
    """Return what a file of tasks says, as Ansible reads it."""
    return [trust(one) for one in value] if isinstance(value, list) else trust_as_template(value)
