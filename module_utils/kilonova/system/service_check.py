# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Run the check mode of several modules in one process, and collect which services differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.kilonova.cloud import (
    cloud_resources,
    compute_id,
    compute_verification,
    keystone_bootstrap,
    keystone_catalog,
    keystone_keys,
    nova_cells,
)
from ansible.module_utils.kilonova.config import config_files
from ansible.module_utils.kilonova.database import galera, mariadb_databases, openstack_schemas
from ansible.module_utils.kilonova.guest_image import image as guest_image
from ansible.module_utils.kilonova.libvirt import probe as libvirt_probe
from ansible.module_utils.kilonova.libvirt import secrets as libvirt_secrets
from ansible.module_utils.kilonova.network import bridge as network_bridge
from ansible.module_utils.kilonova.network import (
    firewall_tables,
    metadata_proxies,
    nft_table,
    ovn_cluster,
    ovn_databases,
    ovs_chassis,
)
from ansible.module_utils.kilonova.storage import monitor as ceph_monitor
from ansible.module_utils.kilonova.storage import osds as ceph_osds
from ansible.module_utils.kilonova.storage import pools as ceph_pools
from ansible.module_utils.kilonova.system import (
    apt_packages,
    haproxy_server,
    rabbitmq_cluster,
    rabbitmq_definitions,
    sysctl_values,
    systemd_units,
)

# Modules that a service map may name under checks. Each has ARGUMENT_SPEC and run(module). One that waits long for
# another program has begin(), whose result run() takes as "begun".
CHECKS: dict[str, ModuleType] = {
    "apt_packages": apt_packages,
    "ceph_monitor": ceph_monitor,
    "ceph_osds": ceph_osds,
    "ceph_pools": ceph_pools,
    "cloud_resources": cloud_resources,
    "compute_id": compute_id,
    "firewall_tables": firewall_tables,
    "galera_member": galera,
    "guest_image": guest_image,
    "haproxy_server": haproxy_server,
    "keystone_bootstrap": keystone_bootstrap,
    "keystone_catalog": keystone_catalog,
    "keystone_keys": keystone_keys,
    "libvirt_probe": libvirt_probe,
    "libvirt_secrets": libvirt_secrets,
    "mariadb_databases": mariadb_databases,
    "metadata_proxies": metadata_proxies,
    "network_bridge": network_bridge,
    "nft_table": nft_table,
    "nova_cells": nova_cells,
    "openstack_schemas": openstack_schemas,
    "ovn_cluster": ovn_cluster,
    "ovn_databases": ovn_databases,
    "ovs_chassis": ovs_chassis,
    "rabbitmq_cluster": rabbitmq_cluster,
    "rabbitmq_definitions": rabbitmq_definitions,
    "sysctl_values": sysctl_values,
}
# They wait for APIs, and run beside the others.
WAITING = ("keystone_bootstrap", "keystone_catalog", "cloud_resources")


class Ended(SystemExit):
    """The end of a module, with its result."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__(0)
        self.result = result


class CheckedModule:
    """Stands for AnsibleModule in a module that runs in this process: own parameters, check mode, result returned."""

    def __init__(self, module: AnsibleModule, params: dict[str, Any]) -> None:
        self._module = module
        self.params = params
        self.check_mode = True
        self.may_cache = not module.check_mode
        self._diff = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def exit_json(self, **result: Any) -> NoReturn:
        raise Ended(result)

    def fail_json(self, msg: str, **result: Any) -> NoReturn:
        raise Ended({**result, "failed": True, "msg": msg})

    def warn(self, warning: str) -> None:
        """Drop the warning: the task of a changed service gives it."""


def run_check(module: AnsibleModule, code: ModuleType, args: Mapping[str, Any], **begun: Any) -> dict[str, Any]:
    """Return the result of a module in check mode; one that failed has ``failed`` and ``msg``."""
    validated = ArgumentSpecValidator(code.ARGUMENT_SPEC).validate(dict(args))
    if validated.error_messages:
        return {"failed": True, "msg": "; ".join(validated.error_messages)}
    try:
        code.run(CheckedModule(module, validated.validated_parameters), **begun)
    except Ended as ended:
        return ended.result
    except Exception as error:
        # The task of the service meets the same error and reports it in full.
        return {"failed": True, "msg": f"{type(error).__name__}: {error}"}
    return {"failed": True, "msg": "the module ended without a result"}


def reason_of(name: str, result: Mapping[str, Any]) -> str:
    """Return why a result of a module makes its service a changed one; empty where it does not."""
    if result.get("failed"):
        return f"{name}: {str(result.get('msg', '')).partition(chr(10))[0]}"
    if result.get("not_looked_at") or result.get("needs_you"):
        return f"{name}: {result.get('not_looked_at') or '; '.join(result['needs_you'])}"
    # libvirt_probe changes nothing; it would boot a guest.
    return f"{name} would change something" if result.get("changed") or result.get("probed") else ""


def files_and_units(
    module: AnsibleModule, services: Sequence[Mapping[str, Any]], foreign: list[str], written: list[str]
) -> dict[str, list[str]]:
    """Return the reasons of services whose files or units differ, and add what is foreign in their units.

    written: gets the files that would be written.

    One call for all services; one for each where that fails.
    """
    files = run_check(module, config_files, {"files": [file for one in services for file in one["files"]]})
    pending = files.get("written_files", [])
    written += pending
    units = [unit for one in services for unit in one["units"]]
    found = run_check(module, systemd_units, {"units": units, "pending": pending})
    if files.get("failed") or found.get("failed") or found.get("needs_you"):
        if len(services) > 1:
            alone = [files_and_units(module, [one], foreign, written) for one in services]
            return {name: why for result in alone for name, why in result.items()}
        foreign += found.get("foreign", [])
        reasons = [reason_of("config_files", files), reason_of("systemd_units", found)]
        return {services[0]["name"]: [reason for reason in reasons if reason]}
    foreign += found.get("foreign", [])
    paths = set(files.get("changed_files", []))
    verbs = ("started", "stopped", "enabled", "disabled", "masked", "unmasked", "outdated")
    names = {name for verb in verbs for name in found.get(verb, [])}
    names |= {unit["name"] for unit in [*found.get("restarted", []), *found.get("reloaded", [])]}
    return {
        one["name"]: [file["dest"] for file in one["files"] if file["dest"] in paths]
        + [unit["name"] for unit in one["units"] if unit["name"] in names]
        for one in services
    }


def check_services(
    module: AnsibleModule, services: Sequence[Mapping[str, Any]], verification: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the result of the module service_check."""
    names = {check["module"] for service in services for check in service["checks"]}
    begun = {name: {"begun": CHECKS[name].begin()} for name in names if hasattr(CHECKS[name], "begin")}
    foreign: list[str] = []
    written: list[str] = []

    def look(check: Mapping[str, Any]) -> dict[str, Any]:
        name = check["module"]
        args = check["args"] | ({"pending": written} if "pending" in CHECKS[name].ARGUMENT_SPEC else {})
        return run_check(module, CHECKS[name], args, **begun.get(name, {}))

    checks = [(service["name"], check) for service in services for check in service["checks"]]
    # Those that were begun come late, and last those that run beside the others.
    checks.sort(key=lambda one: (one[1]["module"] in WAITING, one[1]["module"] in begun))
    with ThreadPoolExecutor(len(WAITING)) as pool:
        asked = [pool.submit(look, check) for _, check in checks if check["module"] in WAITING]
        reasons = files_and_units(module, services, foreign, written) if services else {}
        results = [look(check) for _, check in checks[: len(checks) - len(asked)]]
        results += [each.result() for each in asked]
    for (service_name, check), result in zip(checks, results, strict=True):
        name = check["module"]
        foreign += result.get("foreign", [])
        if reason := reason_of(name, result):
            reasons[service_name].append(reason)
    verified = bool(verification) and bool(run_check(module, compute_verification, verification).get("verified"))
    reasons = {name: why for name, why in reasons.items() if why}
    return {
        "changed_services": [service["name"] for service in services if service["name"] in reasons],
        "reasons": reasons,
        "foreign": foreign,
        "verified": verified,
    }
