# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters over the service maps (see roles/common/vars/main.yml)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

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


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "boot_drop_ins": boot_drop_ins,
            "catalog_services": catalog_services,
            "catalog_users": catalog_users,
            "database_users": database_users,
            "databases_of": databases_of,
            "drop_in_directories": drop_in_directories,
            "files_of": files_of,
            "looked_at_units_of": looked_at_units_of,
            "paths_of": paths_of,
            "services_of": services_of,
            "services_tagged": services_tagged,
            "services_as_wanted": services_as_wanted,
            "units_of": units_of,
        }
