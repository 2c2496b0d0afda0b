# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Check a host and its variables, and fail with every problem at once.

Runs the module preflight_facts on the host, which changes nothing, and the checks of module_utils/preflight*.py here.
Sets the fact C(preflight_facts). Also runs in check mode, and is never C(changed).

Documented in library/preflight.py.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

PROJECT = Path(__file__).resolve().parents[2]
# Ansible makes the project's module_utils importable in modules, not in the plugins that run here.
if str(PROJECT / "module_utils") not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(str(PROJECT / "module_utils"))

from ansible.module_utils.kilonova.preflight import host as checks
from ansible.module_utils.kilonova.preflight import variables as variable_checks

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
}
RANGE_SUFFIXES = ("_range", "_cidr", "_subnet")


def report(host: str, problems: list[str], remarks: list[str]) -> str:
    """All problems of a host as one text."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"{count} on host {host}. Nothing has been changed."]
    lines += [f"  {number}. {text}" for number, text in enumerate(problems, 1)]
    lines += [f"  Note: {text}" for text in remarks]
    return "\n".join(lines)


class ActionModule(ActionBase):
    """See DOCUMENTATION in library/preflight.py."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _, self._arguments = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        # The connection is made before the clock is looked at: making it can take seconds.
        before = time.time()
        wanted = {"paths": self._arguments["paths"]}
        answer = self._execute_module(module_name="preflight_facts", module_args=wanted, task_vars=variables)
        after = time.time()
        if answer.get("failed") or "facts" not in answer:
            result.update(answer)
            return result
        facts = answer["facts"]
        # Some defaults follow from what was just seen of the host.
        self._looked = self._templar.copy_with_new_env(available_variables={**variables, "preflight_facts": facts})
        host = str(variables["inventory_hostname"])
        first = str(variables["ansible_play_hosts_all"][0])
        known = variable_checks.read_roles(PROJECT / "roles")
        problems, remarks = self.check_variables(known, variables)
        problems += self.check_host(facts, variables, known, (before, after))
        remarks += checks.notes(facts, variables.get("group_names", []))
        remarks += checks.note_groups(host, first, variables["groups"])
        result["changed"] = False
        if problems:
            result.update(failed=True, msg=report(host, problems, remarks))
            return result
        result.update(notes=remarks, ansible_facts={"preflight_facts": facts})
        for remark in remarks:
            self._display.display(f"NOTE: [{host}] {remark}", color="blue")
        return result

    def set_by_inventory(self, variables: Mapping[str, Any]) -> list[str]:
        """Names of variables that the inventory or the command line sets for this host."""
        host = variables["inventory_hostname"]
        hostvars = variables["hostvars"]
        raw: Mapping[str, Any] = hostvars.raw_get(host)
        manager = getattr(hostvars, "_variable_manager", None)
        # What earlier tasks registered or set is not the inventory's.
        made = set(getattr(manager, "_nonpersistent_fact_cache", {}).get(host, {}))
        return [str(name) for name in raw if name not in made]

    def check_variables(self, known: variable_checks.Known, variables: dict[str, Any]) -> tuple[list[str], list[str]]:
        """Names, types and secrets: problems and notes."""
        names = self.set_by_inventory(variables)
        problems = variable_checks.check_names(names, known)
        remarks = variable_checks.note_names(names, known)
        values: dict[str, Any] = {}
        for name in sorted(set(names) & set(known.options)):
            try:
                values[name] = self._looked.template(variables[name])
            except AnsibleError as error:
                problems.append(
                    f"{name}: its value cannot be worked out ({' '.join(str(error).split())}). Correct the expression."
                )
        problems += variable_checks.check_types(values, known)
        for name in sorted(known.secrets & set(values)):
            problems += variable_checks.check_secret(name, values[name])
            remarks += variable_checks.note_secret(name, values[name])
        return problems, remarks

    def value(self, variables: dict[str, Any], name: str) -> Any:
        """A variable's value, an empty text where it cannot be had (which the check of variables has said)."""
        try:
            return self._looked.template(variables.get(name, ""))
        except AnsibleError:
            return ""

    def check_host(
        self, facts: dict[str, Any], variables: dict[str, Any], known: variable_checks.Known, times: tuple[float, float]
    ) -> list[str]:
        """The host against its variables."""
        args = self._arguments
        groups = variables["groups"]
        host = str(variables["inventory_hostname"])
        flat, public = str(self.value(variables, "flat_interface")), str(self.value(variables, "public_interface"))
        bridge = str(self.value(variables, "flat_network_bridge"))
        fixed_range = self.value(variables, "fixed_range")
        management = str(self.value(variables, "cloud_management_address"))
        hosts = len({*groups.get("controller", []), *groups.get("compute", [])})
        tunnel_interface = str(self.value(variables, "ovn_chassis_tunnel_interface") or "")
        bridge_address = str(self.value(variables, "ovn_chassis_bridge_address") or "")
        tunnel_address = str(self.value(variables, "ovn_chassis_tunnel_address"))
        bridges = [
            str(self.value(variables, f"ovn_chassis_{name}_bridge")) for name in ("address", "provider", "tunnel")
        ]
        ranges = {
            name: self.value(variables, name)
            for name in known.options
            if name.endswith(RANGE_SUFFIXES) and name in variables
        }
        return [
            *checks.check_groups(host, str(variables["ansible_play_hosts_all"][0]), groups),
            *checks.check_host_name(host),
            *checks.check_system(facts),
            *checks.check_memory(facts, args["minimum_memory_mib"]),
            *checks.check_disk(facts, args["minimum_disk_mib"], args["minimum_disk_deployed_mib"]),
            *checks.check_clock(facts, *times, args["maximum_clock_skew"]),
            *checks.check_flat_interface(facts, flat, bridge),
            *checks.check_public_interface(facts, public, flat, bridge),
            *checks.check_way_out(facts, public, flat, bridge, self.value(variables, "cloud_serves_gateway") is True),
            *checks.check_bridge_name(facts, bridge, flat),
            *checks.check_management_address(facts, management),
            *checks.check_fixed_range(fixed_range, self.value(variables, "network_size")),
            *checks.check_fixed_gateway(str(self.value(variables, "fixed_gateway") or ""), fixed_range),
            *checks.check_host_networks(facts, fixed_range, bridge, management),
            *checks.check_tunnel(facts, bridge_address, tunnel_interface, bridges, hosts),
            *checks.check_tunnel_interface(facts, tunnel_interface, flat),
            *checks.check_tunnel_address(facts, tunnel_address, bridge_address, management, hosts),
            *checks.check_ssh_host_key(facts, variables.get("group_names", [])),
            *checks.check_ranges(ranges),
            *checks.check_ports(facts, args["ports"], variables.get("group_names", [])),
        ]
