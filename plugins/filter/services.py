# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters over the service maps; roles/service/meta/argument_specs.yml has their form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Service = Mapping[str, Any]

DROP_IN = "kilonova.conf"
SANDBOX = "kilonova-sandbox.conf"
# Keys of a unit that are for others than the module systemd_units.
OTHER_UNIT_KEYS = ("drop_in", "logs", "restart", "sandbox", "sandbox_options", "sandbox_restarts", "stop_timeout")


def services_of(services: Iterable[Service], group_names: Iterable[str]) -> list[Service]:
    """Return the services of a host in these groups."""
    groups = set(group_names)
    return [service for service in services if groups.intersection(service["groups"])]


def tags_of(service: Service) -> list[str]:
    """Return the tags that select a service."""
    return list(service.get("tags", [service["name"]]))


def services_tagged(services: Iterable[Service], run_tags: Iterable[str], *everything: str) -> list[Service]:
    """Return the services that a run with these tags selects; all of them with ``all`` or a tag of ``everything``."""
    chosen = set(run_tags)
    if chosen & {"all", "tagged", *everything}:
        return list(services)
    return [service for service in services if chosen.intersection(tags_of(service))]


def services_needed(services: Iterable[Service], run_tags: Iterable[str]) -> list[Service]:
    """Return the services that a run selects and those that serve them: MariaDB for one with a database."""
    services = list(services)
    selected = services_tagged(services, run_tags)
    # Comparing maps, or asking them for a key, has Ansible work out what they contain.
    if len(selected) == len(services):
        return services
    names = {service["name"] for service in selected}
    used = {
        key
        for service in selected
        for key in ("packages", "databases", "schemas", "messaging", "users", "catalog")
        if service.get(key)
    }
    if any(port.get("proxied") for service in selected for port in service.get("ports", [])):
        used.add("proxied")
    return [service for service in services if service["name"] in names or used.intersection(service.get("serves", []))]


def service_tags(services: Iterable[Service]) -> list[str]:
    """Return the tags of all services."""
    return sorted({tag for service in services for tag in tags_of(service)})


def proxied_ports(services: Iterable[Service]) -> list[dict[str, Any]]:
    """Return the ports that HAProxy serves on the API address, in the order of their numbers."""
    found = [port for service in services for port in service.get("ports", []) if port.get("proxied")]
    return sorted(found, key=lambda port: int(port["port"]))


def occupied_ports(services: Iterable[Service], proxy: str) -> list[dict[str, Any]]:
    """Return the ports that services need, as the module preflight takes them.

    proxy: the unit that holds proxied ports as well.
    """
    return [
        {
            "port": port["port"],
            "groups": list(service["groups"]),
            "purpose": port["title"],
            **({"protocol": port["protocol"]} if "protocol" in port else {}),
            "units": [*([proxy] if port.get("proxied") else []), *map(_full_name, port["units"])],
        }
        for service in services
        for port in service.get("ports", [])
        # Plain ports are open only while an earlier deployment holds them. Any process may hold a port of a range.
        if port.get("enabled", True)
        and not port.get("plain")
        and not port.get("last")
        and port.get("protocol") != "vrrp"
    ]


def reachable_ports(services: Iterable[Service], plain: bool = False) -> list[dict[str, Any]]:
    """Return who may connect to the ports of a host with these services, in the order of their numbers.

    HAProxy serves a proxied port to everyone, and nobody else reaches the unit behind it.

    plain: whether ports without TLS, which are open while a run moves a cloud to TLS, are among them.
    """
    services = list(services)
    users = {database["user"] for service in services for database in service.get("databases", [])}
    found = []
    for port in (port for service in services for port in service.get("ports", [])):
        if not port.get("enabled", True) or (port.get("plain") and not plain):
            continue
        proxied = bool(port.get("proxied"))
        local = ["haproxy"] if proxied else port.get("local_users", [])
        # A user of a service that this host does not have would be unknown here.
        local = sorted({*local, *users} - {"services"} if "services" in local else {*local})
        found.append(
            {
                "name": port["name"],
                "title": port["title"],
                "protocol": port.get("protocol", "tcp"),
                "ports": f"{port['port']}-{port['last']}" if port.get("last") else str(port["port"]),
                "from": _sources(port.get("from", ["everyone"] if proxied else [])),
                "local_users": local,
                "proxied": proxied,
            }
        )
    return sorted(found, key=lambda port: (int(port["ports"].partition("-")[0]), port["name"]))


def _sources(sources: Iterable[str]) -> list[str]:
    return [group for source in sources for group in (("controller", "compute") if source == "hosts" else (source,))]


def _full_name(unit: str) -> str:
    return unit if "." in unit else f"{unit}.service"


def hosts_serving(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], units: Iterable[str]) -> list[str]:
    """Return hosts on which all of the units listen, as preflight found them."""
    wanted = set(units)
    return [
        host
        for host in hosts
        if wanted <= {one["unit"] for one in hostvars[host].get("preflight_facts", {}).get("listeners", [])}
    ]


def service_secrets(services: Iterable[Service]) -> list[str]:
    """Return the names of the secrets of all services."""
    return list(dict.fromkeys(name for service in services for name in service.get("secrets", [])))


def service_index(services: Iterable[Service]) -> dict[str, dict[str, list[str]]]:
    """Return units by layer and log files by unit, as /var/lib/kilonova/services.json holds them."""
    layers: dict[str, list[str]] = {}
    logs: dict[str, list[str]] = {}
    for service in services:
        for layer, units in service.get("layers", {}).items():
            layers.setdefault(layer, []).extend(unit for unit in units if unit not in layers.get(layer, []))
        for unit in [*service.get("units", []), *service.get("later_units", [])]:
            if unit.get("logs"):
                logs[unit["name"].removesuffix(".service")] = list(unit["logs"])
    return {"layers": dict(sorted(layers.items())), "logs": dict(sorted(logs.items()))}


def units_of(service: Service) -> list[dict[str, Any]]:
    """Return the units of a service as systemd_units takes them; those that run are enabled."""
    return [
        {"enabled": unit.get("state", "started") == "started", **_for_systemd(unit)}
        for unit in service.get("units", [])
    ]


def later_units_of(service: Service) -> list[dict[str, Any]]:
    """Return the units that the role of a service starts after its other tasks."""
    return [_for_systemd(unit) for unit in service.get("later_units", [])]


def _for_systemd(unit: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in unit.items() if key not in OTHER_UNIT_KEYS}
    if not unit.get("sandbox_restarts", True):
        found["deferred"] = [f"{_drop_in_directory(unit)}/{SANDBOX}"]
    return found


def all_units_of(service: Service) -> list[dict[str, Any]]:
    """Return all units of a service, later ones included."""
    return units_of(service) + later_units_of(service)


def _from_below(services: Iterable[Service]) -> list[Service]:
    """Return services after those whose units they start after."""
    services = list(services)
    owners = {unit["name"]: service for service in services for unit in all_units_of(service)}
    found: dict[str, Service] = {}

    def add(service: Service) -> None:
        for unit in service.get("after", []):
            if unit in owners and owners[unit]["name"] not in found:
                add(owners[unit])
        found.setdefault(service["name"], service)

    for service in services:
        add(service)
    return list(found.values())


def titled_units(services: Iterable[Service]) -> list[dict[str, Any]]:
    """Return the units of services as unit_check takes them, those that others depend on first."""
    return [
        {"title": service["title"], **{key: unit[key] for key in ("name", "state", "enabled") if key in unit}}
        for service in _from_below(services)
        for unit in all_units_of(service)
    ]


def served_certificates(services: Iterable[Service]) -> list[dict[str, Any]]:
    """Return the sockets of services that serve TLS, as unit_check takes them."""
    return [entry for service in services for entry in service.get("certificates", [])]


def files_of(service: Service) -> list[dict[str, Any]]:
    """Return the files of a service as config_files takes them, with the role of each template, and drop-ins."""
    return drop_ins(service) + [{"role": service["name"], **file} for file in service.get("files", [])]


def changed_options(services: Iterable[Service], reasons: Mapping[str, Iterable[str]]) -> list[dict[str, Any]]:
    """Return the services with changed files whose options can be checked, and these files.

    reasons: what service_check found, by service.
    """
    found = []
    for service in services:
        # Most have not changed, and what their files are takes long to work out.
        if not (changed := set(reasons.get(service["name"], []))):
            continue
        files = [file for file in files_of(service) if file["dest"] in changed and file.get("options")]
        if files:
            found.append({"title": service["title"], "files": files})
    return found


def checks_of(service: Service) -> dict[str, Any]:
    """Return what the module service_check compares of a service.

    Files come without the namespaces of their options: services register options of one name in different ways, so that
    one process cannot check the options of several.
    """
    files = [{key: value for key, value in file.items() if key != "options"} for file in files_of(service)]
    return {
        "name": service["name"],
        "files": files,
        "units": all_units_of(service),
        "checks": list(service.get("checks", [])),
    }


def paths_of(service: Service) -> list[str]:
    """Return the paths of the files of a service, without rendering their content."""
    drop_in_paths = [
        path
        for directory in map(_drop_in_directory, _units_with_drop_in(service))
        for path in (directory, f"{directory}/{DROP_IN}", f"{directory}/{SANDBOX}")
    ]
    return drop_in_paths + [file["dest"] for file in service.get("files", [])]


def credentials_of(service: Service) -> list[dict[str, str]]:
    """Return the files of a service that others may not read, as config_files takes them to remove them."""
    return [
        {"dest": file["dest"], "state": "absent"}
        for file in service.get("files", [])
        if file.get("state", "file") == "file" and int(file.get("mode", "0644"), 8) & 0o004 == 0
    ]


def _units_with_drop_in(service: Service) -> list[Mapping[str, Any]]:
    return [
        unit
        for unit in [*service.get("units", []), *service.get("later_units", [])]
        if unit["name"].endswith(".service") and unit.get("drop_in", True)
    ]


def _drop_in_directory(unit: Mapping[str, Any]) -> str:
    return f"/etc/systemd/system/{unit['name']}.d"


def drop_ins(service: Service) -> list[dict[str, Any]]:
    """Return drop-ins, as config_files takes them, with which units come up at boot and after failures.

    systemd gives up on a unit that failed five times in ten seconds, and Debian orders units after other databases and
    queues than these. Units of a service share directories in /run: without RuntimeDirectoryPreserve, the stop of one
    removes them from under the others (status 233/RUNTIME_DIRECTORY).
    """
    order = {"Wants": service.get("wants"), "After": service.get("after")}
    files: list[dict[str, Any]] = []
    for unit in _units_with_drop_in(service):
        lines = ["# Managed by Kilonova. Restarts for as long as it takes, with growing pauses.", "[Unit]"]
        lines += [f"{key}={' '.join(names)}" for key, names in order.items() if names]
        lines += ["StartLimitIntervalSec=0", "", "[Service]"]
        lines += [f"Restart={unit['restart']}"] if unit.get("restart") else []
        lines += [f"TimeoutStopSec={unit['stop_timeout']}"] if unit.get("stop_timeout") else []
        lines += ["RestartSec=100ms", "RestartSteps=6", "RestartMaxDelaySec=30s"]
        lines += ["RuntimeDirectoryPreserve=yes"] if service.get("after") else []
        files.append({"dest": _drop_in_directory(unit), "state": "directory", "mode": "0755"})
        files.append({"dest": f"{_drop_in_directory(unit)}/{DROP_IN}", "content": "\n".join(lines) + "\n"})
        files.append({"dest": f"{_drop_in_directory(unit)}/{SANDBOX}", **_sandbox(unit)})
    return files


def _sandbox(unit: Mapping[str, Any]) -> dict[str, str]:
    """Return the drop-in with the sandbox of a unit, as config_files takes it, without its path.

    A list is a setting that systemd adds up over several lines. The empty first line removes what the unit file has.
    """
    if not unit.get("sandbox"):
        return {"state": "absent"}
    options = {**unit["sandbox"], **unit.get("sandbox_options", {})}
    lines = ["# Managed by Kilonova. To do without: service_sandbox.", "[Service]"]
    for key, value in sorted(options.items()):
        if isinstance(value, bool):
            lines.append(f"{key}={'yes' if value else 'no'}")
        elif isinstance(value, str):
            lines.append(f"{key}={value}")
        else:
            lines += [f"{key}=", *(f"{key}={entry}" for entry in value)]
    return {"content": "\n".join(lines) + "\n"}


def databases_of(services: Iterable[Service]) -> list[dict[str, str]]:
    """Return the databases of services."""
    return [
        {key: value for key, value in database.items() if key in ("name", "encoding")}
        for service in services
        for database in service.get("databases", [])
    ]


def database_users(
    services: Iterable[Service], host: str, others: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Return the database users of services, each with a grant on every database that names it.

    others: second passwords, by the name of the secret.
    """
    users: dict[str, dict[str, Any]] = {}
    for service in services:
        other = (others or {}).get(f"{service['name']}_database_password")
        for database in service.get("databases", []):
            user = users.setdefault(
                database["user"],
                {"name": database["user"], "host": host, "password": database["password"], "privileges": []}
                | ({"other_password": other} if other else {}),
            )
            user["privileges"].append({"database": database["name"]})
    return list(users.values())


def messaging_of(services: Iterable[Service]) -> list[dict[str, Any]]:
    """Return the RabbitMQ accounts of services."""
    return [account for service in services for account in service.get("messaging", [])]


def catalog_users(services: Iterable[Service], project: str, role: str) -> list[dict[str, Any]]:
    """Return the Keystone users of services, with this role and their own in the project and no others."""
    # Otherwise anybody locks a service out by failing to log in as it.
    common = {"default_project": project, "exact_roles": True, "options": {"ignore_lockout_failure_attempts": True}}
    return [
        user | common | {"roles": [{"project": project, "role": name} for name in (role, *user.get("roles", []))]}
        for service in services
        for user in service.get("users", [])
    ]


def catalog_services(services: Iterable[Service]) -> list[dict[str, Any]]:
    """Return the catalog entries of services. All interfaces have one URL, that of HAProxy."""
    return [
        {key: value for key, value in entry.items() if key != "url"}
        | {"endpoints": dict.fromkeys(("public", "internal", "admin"), entry["url"])}
        for service in services
        for entry in service.get("catalog", [])
    ]


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "all_units_of": all_units_of,
            "catalog_services": catalog_services,
            "catalog_users": catalog_users,
            "changed_options": changed_options,
            "checks_of": checks_of,
            "credentials_of": credentials_of,
            "database_users": database_users,
            "databases_of": databases_of,
            "drop_ins": drop_ins,
            "files_of": files_of,
            "hosts_serving": hosts_serving,
            "later_units_of": later_units_of,
            "messaging_of": messaging_of,
            "occupied_ports": occupied_ports,
            "paths_of": paths_of,
            "proxied_ports": proxied_ports,
            "reachable_ports": reachable_ports,
            "served_certificates": served_certificates,
            "service_index": service_index,
            "service_secrets": service_secrets,
            "service_tags": service_tags,
            "services_needed": services_needed,
            "services_of": services_of,
            "services_tagged": services_tagged,
            "titled_units": titled_units,
            "units_of": units_of,
        }
