# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters over the inventory and the service maps (see roles/common/vars/main.yml)."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

DROP_IN = "kilonova.conf"


def services_of(services: Iterable[Mapping[str, Any]], group_names: Iterable[str]) -> list[Mapping[str, Any]]:
    """The services that a host in these inventory groups runs."""
    groups = set(group_names)
    return [service for service in services if groups.intersection(service["groups"])]


def services_tagged(
    services: Iterable[Mapping[str, Any]], run_tags: Iterable[str], *everything: str
) -> list[Mapping[str, Any]]:
    """The services that a run with these tags is for: all of them with C(all) or a tag that means everything here."""
    chosen = set(run_tags)
    if chosen & {"all", "tagged", *everything}:
        return list(services)
    return [service for service in services if chosen.intersection(service.get("tags", [service["name"]]))]


def services_as_wanted(
    services: Iterable[Mapping[str, Any]], files: Mapping[str, Any], units: Mapping[str, Any]
) -> list[str]:
    """The names of the services of which a look found nothing to change; files and units are the modules' results."""
    paths = set(files.get("changed_files", []))
    verbs = ("started", "stopped", "enabled", "disabled", "masked", "unmasked")
    names = {name for verb in verbs for name in units.get(verb, [])}
    names |= {entry["name"] for entry in units.get("restarted", [])}
    return [
        service["name"]
        for service in services
        if paths.isdisjoint(paths_of(service))
        and names.isdisjoint(unit["name"] for unit in looked_at_units_of(service))
    ]


def units_of(service: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A service's units, which start at boot if they run: not every package sees to that itself."""
    return [
        {"enabled": unit.get("state", "started") == "started"}
        | {key: value for key, value in unit.items() if key != "drop_in"}
        for unit in service.get("units", [])
    ]


def looked_at_units_of(service: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All units of a service: with those that its role starts itself, later (C(later_units))."""
    return units_of(service) + list(service.get("later_units", []))


def files_of(service: Mapping[str, Any], checked: bool = True) -> list[dict[str, Any]]:
    """A service's files as config_files takes them, drop-ins included, each with the role whose template it is.

    Unchecked, without the names of their options: those of several services cannot be read in one process, because they
    register options of the same names in different ways.
    """
    role = service.get("role", service["name"])
    files = [{**file, "role": role} for file in service["files"]]
    if not checked:
        files = [{key: value for key, value in file.items() if key != "options"} for file in files]
    return files + boot_drop_ins(service)


def paths_of(service: Mapping[str, Any]) -> list[str]:
    """The paths of a service's files, drop-ins included.

    Ansible works out what is read of a map, and only that: a file's content takes a hundred times as long as its path.
    """
    return [file["dest"] for file in service["files"]] + [
        path for directory in drop_in_directories(service) for path in (directory, f"{directory}/{DROP_IN}")
    ]


def drop_in_directories(service: Mapping[str, Any]) -> list[str]:
    """Where systemd looks for drop-ins of those of a service's units that get one."""
    if not service.get("after"):
        return []
    return [f"/etc/systemd/system/{unit['name']}.d" for unit in service["units"] if unit.get("drop_in", True)]


def boot_drop_ins(service: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    Drop-ins, as config_files takes them, that let a service's units come up at boot with what they need.

    Debian's units order themselves after the names that other databases and queues have, and systemd gives up on a
    unit that failed five times in ten seconds. The units of a service share a directory in C(/run) and one for locks.
    systemd would remove them when any of the units stops, although the others hold locks there and one may just be
    starting (status 233/RUNTIME_DIRECTORY). A unit with C(drop_in: false) is the host's own and gets none.
    """
    directories = drop_in_directories(service)
    if not directories:
        return []
    wants = f"Wants={' '.join(service['wants'])}\n" if service.get("wants") else ""
    content = (
        "# Managed by Kilonova.\n"
        "[Unit]\n"
        f"{wants}"
        f"After={' '.join(service['after'])}\n"
        "StartLimitIntervalSec=0\n\n"
        "[Service]\n"
        "RestartSec=2s\n"
        "RuntimeDirectoryPreserve=yes\n"
    )
    files: list[dict[str, Any]] = []
    for directory in directories:
        files.append({"dest": directory, "state": "directory", "mode": "0755"})
        files.append({"dest": f"{directory}/{DROP_IN}", "content": content})
    return files


def databases_of(services: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The databases that services ask for."""
    return [
        {key: value for key, value in database.items() if key in ("name", "encoding")}
        for service in services
        for database in service.get("databases", [])
    ]


def database_users(services: Iterable[Mapping[str, Any]], host: str) -> list[dict[str, Any]]:
    """The database users that services ask for, each with a grant on every database that names it."""
    users: dict[str, dict[str, Any]] = {}
    for service in services:
        for database in service.get("databases", []):
            user = users.setdefault(
                database["user"],
                {"name": database["user"], "host": host, "password": database["password"], "privileges": []},
            )
            user["privileges"].append({"database": database["name"]})
    return list(users.values())


def catalog_users(services: Iterable[Mapping[str, Any]], project: str, roles: Iterable[str]) -> list[dict[str, Any]]:
    """The Keystone users that services ask for, with their roles in the services' project."""
    return [
        user | {"default_project": project, "roles": [{"project": project, "role": role} for role in roles]}
        for service in services
        for user in service.get("users", [])
    ]


def catalog_services(services: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The catalog's services. Every interface has the same URL: HAProxy's."""
    return [
        {key: value for key, value in entry.items() if key != "url"}
        | {"endpoints": {interface: entry["url"] for interface in ("public", "internal", "admin")}}
        for service in services
        for entry in service.get("services", [])
    ]


def first_host(cidr: str) -> str:
    """The first usable address of a network."""
    try:
        return str(next(iter(ipaddress.ip_network(cidr, strict=False).hosts())))
    except (ValueError, StopIteration) as error:
        raise AnsibleFilterError(f"'{cidr}' is not a network in CIDR form: {error}") from error


def prefix_length(cidr: str) -> int:
    """The prefix length of a network."""
    try:
        return ipaddress.ip_network(cidr, strict=False).prefixlen
    except ValueError as error:
        raise AnsibleFilterError(f"'{cidr}' is not a network in CIDR form: {error}") from error


def hosts_lines(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines for /etc/hosts: each host's management address and its name."""

    def address(host: str) -> str:
        variables = hostvars[host]
        return str(variables.get("cloud_management_address") or variables.get("ansible_host") or host)

    return [f"{address(host)} {host}" for host in hosts]


def addresses_on(interfaces: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> list[str]:
    """Addresses of those of a host's interfaces that have one of the names, without prefix length."""
    return [
        cidr.partition("/")[0]
        for name in dict.fromkeys(names)
        for cidr in interfaces.get(name, {}).get("addresses", [])
    ]


def interface_with(interfaces: Mapping[str, Mapping[str, Any]], address: str, otherwise: str) -> str:
    """Name of the interface that has an address, or another one where none has it."""
    found = [name for name in interfaces if address in addresses_on(interfaces, [name])]
    return found[0] if found else otherwise


def probe_servers(hosts: Iterable[str], server: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One server for each compute, as cloud_resources takes them, that runs there and nowhere else."""
    return [{**server, "name": f"kilonova-probe-{host}", "host": host} for host in hosts]


def computes_to_probe(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], again: bool) -> list[str]:
    """Of the hosts with a result of compute_verification, those not verified; with ``again``, all."""
    looked_at = {host: hostvars[host].get("verify_compute_found", {}) for host in hosts}
    return [host for host, found in looked_at.items() if "compute" in found and (again or not found["verified"])]


def expected_of_libvirt(server: Mapping[str, Any]) -> dict[str, Any]:
    """What libvirt must run for a server in the shape of cloud_health, as libvirt_instance takes it."""
    flavor = server["flavor"]
    return {
        "vcpus": flavor["vcpus"],
        "memory_mib": flavor["ram"],
        "disk_gib": flavor["disk"],
        "interfaces": server["ports"],
    }


def rabbitmq_password_hash(password: str) -> str:
    """
    A password as RabbitMQ keeps it: base64(salt + sha256(salt + password)).

    The salt comes from the password itself so that an unchanged password gives an unchanged file. The file is
    readable by RabbitMQ only, and the password is as random as the hash.
    Format: https://www.rabbitmq.com/docs/passwords#computing-password-hash
    """
    data = password.encode()
    salt = hashlib.sha256(b"rabbitmq definitions" + data).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + data).digest()).decode()


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "addresses_on": addresses_on,
            "boot_drop_ins": boot_drop_ins,
            "catalog_services": catalog_services,
            "catalog_users": catalog_users,
            "computes_to_probe": computes_to_probe,
            "database_users": database_users,
            "databases_of": databases_of,
            "drop_in_directories": drop_in_directories,
            "expected_of_libvirt": expected_of_libvirt,
            "files_of": files_of,
            "first_host": first_host,
            "hosts_lines": hosts_lines,
            "interface_with": interface_with,
            "looked_at_units_of": looked_at_units_of,
            "paths_of": paths_of,
            "prefix_length": prefix_length,
            "probe_servers": probe_servers,
            "rabbitmq_password_hash": rabbitmq_password_hash,
            "services_of": services_of,
            "services_tagged": services_tagged,
            "services_as_wanted": services_as_wanted,
            "units_of": units_of,
        }
