# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Check a host and its variables, and fail with all problems at once.

Runs the module preflight_facts on the host, and the checks of module_utils/kilonova/preflight here. Changes nothing.

Documented in library/preflight.py.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

PROJECT = Path(__file__).resolve().parents[2]
# Ansible makes module_utils importable in modules only.
if str(PROJECT / "module_utils") not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(str(PROJECT / "module_utils"))

from ansible.module_utils.kilonova.preflight import (
    certificate,
    chassis,
    controllers,
    deployed,
    disks,
    firewall,
    first_cloud,
    interfaces,
    inventory,
    names,
    networks,
    ports,
    ranges,
    roles,
    secret_values,
    secrets_store,
    storage,
    system,
    tunnels,
    values,
)

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "ports": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "port": {"type": "int", "required": True},
            "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
            "groups": {"type": "list", "elements": "str", "required": True},
            "units": {"type": "list", "elements": "str", "required": True},
            "purpose": {"type": "str", "required": True},
        },
    },
    "minimum_memory_mib": {"type": "int", "required": True},
    "minimum_disk_mib": {"type": "int", "required": True},
    "minimum_disk_deployed_mib": {"type": "int", "required": True},
    "maximum_clock_skew": {"type": "int", "required": True},
    "paths": {"type": "list", "elements": "path", "default": []},
    "directories": {"type": "list", "elements": "path", "default": []},
    "devices": {"type": "list", "elements": "path", "default": []},
    "peers": {"type": "list", "elements": "str", "default": []},
    "neighbours": {"type": "list", "elements": "str", "default": []},
    "images_are_shared": {"type": "bool", "default": False},
    "known_tags": {"type": "list", "elements": "str", "required": True},
    "secrets_path": {"type": "path", "required": True, "no_log": False},
    "secrets_names": {"type": "list", "elements": "str", "required": True, "no_log": False},
    "secrets_regenerate": {"type": "bool", "default": False, "no_log": False},
}
RANGE_SUFFIXES = ("_range", "_cidr", "_subnet")
DEFAULT_BATCH = "100%"
# Groups of the hosts that something is deployed on, and those of hosts with a bridge and tunnels.
GROUPS, NETWORKED = ("controller", "compute", "storage"), ("controller", "compute")


def report(host: str, problems: list[str], notes: list[str]) -> str:
    """Return all problems of a host as one text."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"{count} on host {host}. Nothing has been changed."]
    lines += [f"  {number}. {text}" for number, text in enumerate(problems, 1)]
    lines += [f"  Note: {text}" for text in notes]
    return "\n".join(lines)


class ActionModule(ActionBase):
    """See DOCUMENTATION in library/preflight.py."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Collect facts, check, and fail or return the facts."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _, self._arguments = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        # Connecting can take seconds, so the time is taken when the connection is there.
        before = time.time()
        wanted = {name: self._arguments[name] for name in ("paths", "directories", "devices", "peers", "neighbours")}
        answer = self._execute_module(module_name="preflight_facts", module_args=wanted, task_vars=variables)
        after = time.time()
        if answer.get("failed") or "facts" not in answer:
            result.update(answer)
            return result
        facts = answer["facts"]
        self._variables = variables
        self._groups = list(variables.get("group_names", []))
        host = str(variables["inventory_hostname"])
        first = str(variables["ansible_play_hosts"][0])
        if problems := system.check_user(facts):
            result.update(failed=True, changed=False, msg=report(host, problems, []))
            return result
        known = roles.read_roles(PROJECT / "roles")

        stored, missing, problems = self.find_secrets()
        # Defaults depend on the facts. Values of the inventory may contain secrets that are yet to be generated.
        self._later = self._templar.copy_with_new_env(
            available_variables={**dict.fromkeys(missing, "x" * 32), **stored, **variables, "preflight_facts": facts}
        )
        more, notes = self.check_variables(known, facts, stored)
        problems += more
        problems += secret_values.check_missing(
            facts, missing, self._arguments["secrets_path"], self._arguments["secrets_regenerate"]
        )
        if host == first:
            problems += self.check_run(missing)
            stores = list(variables["groups"].get("storage", []))
            problems += storage.check_existing(self.value("ceph_existing"), stores)
            notes += storage.note_hosts(stores, int(self.value("ceph_pools_size") or 0))
        problems += self.check_host(facts, known, host, first)
        problems += system.check_clock(facts, before, after, self._arguments["maximum_clock_skew"])
        notes += system.notes(facts, self._groups)
        notes += inventory.note_groups(host, first, variables["groups"])
        result["changed"] = False
        if problems:
            result.update(failed=True, msg=report(host, problems, notes))
            return result
        result.update(notes=notes, ansible_facts={"preflight_facts": facts})
        for note in notes:
            self._display.display(f"NOTE: [{host}] {note}", color="blue")
        return result

    def find_secrets(self) -> tuple[dict[str, Any], list[str], list[str]]:
        """Return secrets in a file that the inventory does not load, names of missing ones, and problems."""
        unset = [name for name in self._arguments["secrets_names"] if name not in self._variables]
        path = Path(self._arguments["secrets_path"])
        if not path.is_absolute():
            why = "the secrets need an absolute path, and an inventory that is no file has no directory to keep them in"
            instead = "Write the inventory in a directory (inventory/example), or set secrets_path to an absolute path"
            return {}, [], [values.message("secrets_path", str(path), why, instead)]
        if not unset:
            return {}, [], []
        try:
            content, _ = secrets_store.load(path, secrets_store.vault_of(self._loader))
        except AnsibleError as error:
            return {}, [], [str(error)]
        stored = {name: content[name] for name in unset if name in content}
        return stored, [name for name in unset if name not in stored], []

    def set_by_inventory(self, known: roles.Known) -> list[str]:
        """Return names of variables that the inventory or the command line sets for this host."""
        found = [str(name) for name in self._variables["hostvars"][self._variables["inventory_hostname"]]]
        # What earlier tasks set is in there as well. It matters only where no role declares it.
        unknown = [name for name in found if names.ours(name, known)]
        made = names.set_by_tasks(unknown, PROJECT)
        return [name for name in found if name not in made]

    def check_variables(
        self, known: roles.Known, facts: Mapping[str, Any], stored: Mapping[str, Any]
    ) -> tuple[list[str], list[str]]:
        """Check names and values of variables: return problems and notes."""
        given = self.set_by_inventory(known)
        problems = [*names.check_names(given, known), *names.check_renamed(given)]
        notes = names.note_names(given, known)
        found: dict[str, Any] = dict(stored)
        for name in sorted(set(given) & set(known.options)):
            try:
                found[name] = self._later.template(self._variables[name])
            except AnsibleError as error:
                problems.append(
                    f"{name}: its value cannot be worked out ({' '.join(str(error).split())}). Correct the expression."
                )
        problems += [
            *values.check_types(found, known),
            *values.check_override_forms(found),
            *ranges.check_numbers(found, known),
            *ranges.check_memory_sizes(found, facts, self._groups),
            *ranges.check_addresses(found, known),
            *firewall.check_sources(found),
        ]
        notes += values.note_removed_options(found)
        secrets = known.secrets.union(self._arguments["secrets_names"]) & set(found)
        problems += secret_values.check_password_length(found, secrets)
        for name in sorted(secrets):
            problems += secret_values.check_secret(name, found[name])
            notes += secret_values.note_secret(name, found[name])
        problems += secret_values.check_trusted_seeds(found.get(secret_values.TRUSTED))
        return problems, notes

    def value(self, name: str) -> Any:
        """Return the value of a variable, an empty text where check_variables has reported it."""
        try:
            return self._later.template(self._variables.get(name, ""))
        except AnsibleError:
            return ""

    def text(self, name: str) -> str:
        """Return the value of a variable as text."""
        return str(self.value(name) or "")

    def check_run(self, missing: list[str]) -> list[str]:
        """Check what concerns the run as a whole."""
        variables, arguments = self._variables, self._arguments
        controllers = variables["groups"].get("controller", [])
        return [
            *inventory.check_tags(arguments["known_tags"], variables.get("ansible_run_tags", [])),
            *secret_values.check_limited(
                missing, controllers, variables["ansible_play_hosts_all"], arguments["secrets_path"]
            ),
        ]

    def check_batch(self, host: str) -> list[str]:
        """Compare the host's number of computes at a time with that of the first controller."""
        hostvars = self._variables["hostvars"]
        reference = next(iter(self._variables["groups"].get("controller", [])), host)
        try:
            mine, used = (hostvars[name].get("cloud_compute_batch", DEFAULT_BATCH) for name in (host, reference))
        except AnsibleError:
            return []  # check_variables reports it.
        return inventory.check_batch(mine, reference, used)

    def connections(self) -> dict[str, tuple[str, str]]:
        """Return address and port by which each host of the cloud is reached."""
        hostvars, groups = self._variables["hostvars"], self._variables["groups"]
        found = {}
        for name in {host for group in GROUPS for host in groups.get(group, [])}:
            try:
                own = hostvars[name]
                if address := str(own.get("ansible_host", name)):
                    found[name] = (address, str(own.get("ansible_port", 22)))
            except AnsibleError:
                continue  # Where it cannot be worked out, Ansible cannot connect either.
        return found

    def check_certificate(self, address: str) -> list[str]:
        """Check the operator's own certificate, read here as the tasks read it."""

        def load(path: str) -> str:
            try:
                return str(self._loader.get_text_file_contents(path))
            except AnsibleError as error:
                raise OSError(" ".join(str(error).split())) from None

        texts, problems = certificate.read({name: self.text(name) for name in certificate.NAMES}, load)
        return problems or certificate.check_certificate(texts, address, datetime.now(UTC))

    def check_firewall(self, facts: dict[str, Any]) -> list[str]:
        """Check that the firewall lets this run in."""
        if not self.value("firewall_enabled"):
            return []
        names = ("firewall_ssh_sources", "firewall_ssh_ports", "firewall_host_addresses")
        return firewall.check_way_in(facts, *(self.value(name) for name in names))

    def check_networks(self, facts: dict[str, Any], known: roles.Known) -> list[str]:
        """Check the bridge, the tunnels and the ranges of a controller or compute."""
        text, groups = self.text, self._variables["groups"]
        flat, public = text("flat_interface"), text("public_interface")
        bridge, fixed_range = text("flat_network_bridge"), self.value("fixed_range")
        management = text("cloud_management_address")
        hosts = len({host for group in NETWORKED for host in groups.get(group, [])})
        tunnel_interface, tunnel_address = text("ovn_chassis_tunnel_interface"), text("ovn_chassis_tunnel_address")
        bridge_address = text("ovn_chassis_bridge_address")
        bridges = [text(f"ovn_chassis_{name}_bridge") for name in ("address", "provider", "tunnel")]
        own_ranges = {
            name: self.value(name)
            for name in known.options
            if name.endswith(RANGE_SUFFIXES) and name in self._variables
        }
        return [
            *interfaces.check_flat_interface(facts, flat, bridge),
            *interfaces.check_public_interface(facts, public, flat, bridge),
            *interfaces.check_way_out(facts, public, flat, bridge, self.value("cloud_serves_gateway") is True),
            *interfaces.check_bridge_name(facts, bridge, flat),
            *networks.check_fixed_range(fixed_range, self.value("network_size")),
            *networks.check_fixed_gateway(text("fixed_gateway"), fixed_range),
            *networks.check_host_networks(facts, fixed_range, bridge, management),
            *networks.check_ranges(own_ranges),
            *tunnels.check_tunnel(facts, bridge_address, tunnel_interface, bridges, hosts),
            *tunnels.check_tunnel_interface(facts, tunnel_interface, flat),
            *tunnels.check_tunnel_address(facts, tunnel_address, bridge_address, management, hosts),
        ]

    def check_controllers(self, facts: dict[str, Any], host: str) -> list[str]:
        """Check the address of the APIs, and what several controllers need."""
        address = self.text("cloud_api_address")
        names = list(self._variables["groups"]["controller"])
        former = self.value("haproxy_former_addresses")
        if len(names) == 1:
            # The APIs, and nothing else, would be looked for there.
            found = interfaces.check_own_address(facts, "cloud_api_address", address)
            for one in former:
                found += interfaces.check_own_address(facts, "haproxy_former_addresses", str(one))
            return found
        hosts = self.value("cloud_controller_addresses")
        found = controllers.check_address(facts, address, self.text("cloud_management_address"), hosts)
        if host == names[0]:
            path, shared = self.text("glance_store_path"), self._arguments["images_are_shared"]
            found += controllers.check_number(names)
            found += controllers.check_former(former)
            found += controllers.check_images(path, shared, self.value("ceph_enabled") is True)
        return found

    def check_storage(self, facts: dict[str, Any], host: str) -> list[str]:
        """Check what a storage host is to store on."""
        devices, fsid = self.value("ceph_osd_devices"), self.text("ceph_fsid")
        target = int(self.value("ceph_osd_memory_target_mib") or 0)
        return [
            *storage.check_devices(facts, devices, host, fsid),
            *storage.check_memory(facts, self._arguments["minimum_memory_mib"], target, devices),
            *storage.check_identity(facts, fsid),
        ]

    def check_host(self, facts: dict[str, Any], known: roles.Known, host: str, first: str) -> list[str]:
        """Check the host against its variables."""
        args, text, groups = self._arguments, self.text, self._variables["groups"]
        networked = {host for group in NETWORKED for host in groups.get(group, [])}
        found = [
            *inventory.check_groups(host, first, groups),
            *inventory.check_host_name(host),
            *inventory.check_one_name(host, self.connections()),
            *self.check_batch(host),
            *system.check_system(facts),
            *system.check_memory(facts, args["minimum_memory_mib"]),
            *system.check_disk(facts, args["minimum_disk_mib"], args["minimum_disk_deployed_mib"]),
            *system.check_ssh_host_key(facts, self._groups),
            *chassis.check_system_id(facts, host, networked),
            *system.check_kvm(facts, self.value("libvirt_virt_type"), self._groups),
            *interfaces.check_own_address(facts, "cloud_management_address", text("cloud_management_address")),
            *(self.check_networks(facts, known) if host in networked else []),
            *ports.check_ports(facts, args["ports"], self._groups),
            *self.check_firewall(facts),
            *disks.check_guest_disks(
                facts, text("nova_compute_disks"), self.value("ceph_enabled") is True, self._groups
            ),
            *disks.check_images(
                facts,
                text("glance_store_path"),
                self.value("glance_file_store_kept") is True,
                self.value("ceph_enabled") is True,
                self._groups,
            ),
            *storage.check_monitors(facts, self.value("ceph_existing")),
            *(self.check_storage(facts, host) if host in groups.get("storage", []) else []),
            *deployed.check_recorded(facts, {name: self.value(name) for name in deployed.FIXED}),
        ]
        if "controller" in self._groups:
            found += self.check_controllers(facts, host)
            found += self.check_certificate(text("cloud_api_address"))
            parts = ("server_name", "server_flavor", "server_image", "flavors", "images")
            found += first_cloud.check_server(*(self.value(f"first_cloud_{part}") for part in parts))
            found += first_cloud.check_rules(self.value("first_cloud_security_group_rules"))
        return found
