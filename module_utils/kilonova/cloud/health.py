# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Read the state of a cloud from its APIs and find what is wrong. Used by cloud_health and guest_probe."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils.kilonova.cloud import localnet
from ansible.module_utils.kilonova.cloud.api import CloudApi, CloudError, layer_logs, server_summary
from ansible.module_utils.kilonova.cloud.image_data import image_data_faults
from ansible.module_utils.kilonova.cloud.volume_health import read_volume_services, volume_service_faults

POLL_SECONDS = 2.0
MANY, MANY_LINES, FEW_LINES = 3, 15, 5
SERVICE_BINARIES = {f"nova-{name}": f"Nova {name}" for name in ("scheduler", "conductor", "compute")}
# nova-compute disables itself while libvirt is away, and enables itself afterwards.
DISABLED_BY_NOVA = "AUTO:"
# On a gateway chassis the controller agent has another name.
AGENT_TYPES = {
    "OVN": ("OVN Controller agent", "OVN Controller Gateway agent"),
    "OVN metadata agent": ("OVN Metadata agent",),
}
HEALTH_ARGUMENTS: dict[str, dict[str, Any]] = {
    "computes": {"type": "list", "elements": "str", "default": []},
    "images": {"type": "list", "elements": "str", "default": []},
    "silent_hosts": {"type": "list", "elements": "str", "default": []},
}
# States that a server leaves by a request only.
ENDED = ("SHUTOFF", "ERROR", "PAUSED", "SUSPENDED", "SHELVED", "SHELVED_OFFLOADED", "SOFT_DELETED", "VERIFY_RESIZE")
# How long to look on for others beside a problem that does not pass.
OTHERS_SECONDS = 5.0
Problem = dict[str, Any]


def problem(layer: str, message: str, *hosts: str, passes: bool = True) -> Problem:
    """Return a problem. passes: whether it may pass by itself, so that waiting makes sense."""
    return {"layer": layer, "message": message, "hosts": list(hosts), "passes": passes}


# Reading


def read_services(api: CloudApi) -> list[dict[str, Any]]:
    return [
        {
            "binary": one["binary"],
            "host": one["host"],
            "zone": one["zone"],
            "status": one["status"],
            "state": one["state"],
            "forced_down": one.get("forced_down", False),
            "disabled_reason": one.get("disabled_reason") or "",
        }
        for one in api.listing("compute", "/os-services", "services")
    ]


def read_hypervisors(api: CloudApi) -> list[dict[str, Any]]:
    return [
        {
            "name": one["hypervisor_hostname"],
            "host": one["service"]["host"],
            "type": one.get("hypervisor_type", ""),
            "state": one["state"],
            "status": one["status"],
            "address": one.get("host_ip", ""),
            "servers": one.get("running_vms", 0),
        }
        for one in api.listing("compute", "/os-hypervisors/detail", "hypervisors")
    ]


def read_providers(api: CloudApi) -> dict[str, dict[str, Any]]:
    """Return inventory and usage by provider name; sizes are 0 until nova-compute reports."""
    result = {}
    for one in api.get("placement", "/resource_providers")["resource_providers"]:
        inventories = api.get("placement", f"/resource_providers/{one['uuid']}/inventories")["inventories"]
        usages = api.get("placement", f"/resource_providers/{one['uuid']}/usages")["usages"] if inventories else {}
        result[one["name"]] = {
            "vcpus": inventories.get("VCPU", {}).get("total", 0),
            "vcpus_used": usages.get("VCPU", 0),
            "ram": inventories.get("MEMORY_MB", {}).get("total", 0),
            "ram_used": usages.get("MEMORY_MB", 0),
        }
    return result


def read_agents(api: CloudApi) -> list[dict[str, Any]]:
    return [
        {
            "type": one["agent_type"],
            "binary": one["binary"],
            "host": one["host"],
            "alive": one["alive"],
            "enabled": one["admin_state_up"],
        }
        for one in api.listing("network", "/agents", "agents")
    ]


def read_images(api: CloudApi) -> list[dict[str, Any]]:
    names = ("name", "id", "status", "visibility", "size", "stores", "direct_url")
    return [{name: one.get(name) for name in names} for one in api.listing("image", "/images", "images")]


def read_servers(api: CloudApi) -> list[dict[str, Any]]:
    return [server_summary(one) for one in api.listing("compute", "/servers/detail", "servers")]


def read_ports(api: CloudApi) -> dict[str, list[dict[str, Any]]]:
    """Return the ports of guests by server id, as Neutron has them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in api.listing("network", "/ports", "ports"):
        if one["device_owner"].startswith("compute:"):
            addresses = [entry["ip_address"] for entry in one["fixed_ips"]]
            port = {"port_id": one["id"], "mac": one["mac_address"], "address": addresses[0] if addresses else ""}
            found.setdefault(one["device_id"], []).append(port | {"status": one["status"]})
    return found


READERS: dict[str, Callable[[CloudApi], Any]] = {
    "services": read_services,
    "hypervisors": read_hypervisors,
    "providers": read_providers,
    "agents": read_agents,
    "images": read_images,
    "volume_services": read_volume_services,
    "servers": read_servers,
    "ports": read_ports,
    "physical_networks": localnet.read_physical_networks,
    "localnets": lambda _api: localnet.read_localnets(),
}


def read_all(api: CloudApi, images: Sequence[str] = ()) -> tuple[dict[str, Any], list[Problem]]:
    """Return the state part by part, and the failures of those parts that could not be read.

    The data of the named images is tried as well.
    """
    state: dict[str, Any] = {}
    problems: list[Problem] = []
    with ThreadPoolExecutor(max_workers=len(READERS)) as pool:
        answers = {name: pool.submit(reader, api) for name, reader in READERS.items()}
    for name, answer in answers.items():
        try:
            state[name] = answer.result()
        except CloudError as error:
            problems.append(problem(error.layer, str(error), passes=error.logs_matter))
    faults = image_data_faults(api, state.get("images", []), images)
    problems += [problem(layer, text, passes=passes) for layer, text, passes in faults]
    for one in state.get("hypervisors", []):
        one.update(state.get("providers", {}).get(one["name"], {}))
    for one in state.get("servers", []):
        ports = state.get("ports", {}).get(one["id"], [])
        one["ports"] = [{name: port[name] for name in ("port_id", "mac", "address")} for port in ports]
        one["port_status"] = {port["port_id"]: port["status"] for port in ports}
    return state, problems


# Judging


def service_problems(services: list[dict[str, Any]], computes: list[str]) -> list[Problem]:
    found = []
    for one in services:
        layer = SERVICE_BINARIES.get(one["binary"], "Nova API")
        if one["state"] != "up":
            forced = one["forced_down"]
            why = "was forced down" if forced else "is down (Nova gets no heartbeat from it)"
            found.append(problem(layer, f"{one['binary']} on {one['host']} {why}", one["host"], passes=not forced))
        if one["status"] != "enabled":
            reason = f" ({one['disabled_reason']})" if one["disabled_reason"] else ""
            found.append(
                problem(
                    layer,
                    f"{one['binary']} on {one['host']} is {one['status']}{reason}; openstack compute service set "
                    f"--enable {one['host']} {one['binary']} enables it",
                    one["host"],
                    passes=one["disabled_reason"].startswith(DISABLED_BY_NOVA),
                )
            )
    for binary, layer in SERVICE_BINARIES.items():
        hosts = {one["host"] for one in services if one["binary"] == binary}
        if binary != "nova-compute" and not hosts:
            found.append(problem(layer, f"no {binary} has ever reported to Nova"))
        if binary == "nova-compute":
            found += [
                problem(layer, f"nova-compute on {host} has never reported to Nova", host)
                for host in computes
                if host not in hosts
            ]
    return found


def provider_problems(
    services: list[dict[str, Any]],
    hypervisors: list[dict[str, Any]],
    providers: dict[str, dict[str, Any]],
    computes: list[str],
) -> list[Problem]:
    found = []
    reported = {one["host"] for one in services if one["binary"] == "nova-compute"}
    for host in [one for one in computes if one in reported]:
        here = [one for one in hypervisors if one["host"] == host]
        if not here:
            found.append(
                problem(
                    "Nova compute",
                    f"{host} is not a hypervisor yet; nova-manage cell_v2 discover_hosts maps those that have reported",
                    host,
                )
            )
        for one in here:
            if not providers.get(one["name"], {}).get("vcpus"):
                found.append(
                    problem(
                        "Placement",
                        f"Placement has no inventory of {one['name']}, so the scheduler cannot choose {host}",
                        host,
                    )
                )
    return found


def agent_problems(agents: list[dict[str, Any]], computes: list[str]) -> list[Problem]:
    found = []
    for one in agents:
        layer = next((layer for layer, types in AGENT_TYPES.items() if one["type"] in types), "Neutron")
        if not one["alive"]:
            found.append(problem(layer, f"{one['type']} on {one['host']} is not alive", one["host"]))
        if not one["enabled"]:
            found.append(problem(layer, f"{one['type']} on {one['host']} is disabled", one["host"], passes=False))
    for host in computes:
        for layer, types in AGENT_TYPES.items():
            if not any(one["host"] == host and one["type"] in types for one in agents):
                found.append(problem(layer, f"{host} has no {types[0]}", host))
    return found


def image_problems(images: list[dict[str, Any]], names: list[str]) -> list[Problem]:
    found = []
    for name in names:
        states = sorted({str(one["status"]) for one in images if one["name"] == name})
        if not states:
            found.append(problem("Glance", f"the image '{name}' is not listed", passes=False))
        elif "active" not in states:
            found.append(problem("Glance", f"the image '{name}' is {', '.join(states)}, not active"))
    return found


def server_problems(servers: list[dict[str, Any]], names: list[str]) -> list[Problem]:
    found = []
    for name in names:
        here = [one for one in servers if one["name"] == name]
        if not here:
            found.append(problem("Nova API", f"there is no server '{name}' in the project", passes=False))
        for one in here:
            if one["status"] == "ACTIVE":
                found += port_problems(one)
                continue
            fault = f": {one['fault']}" if one["fault"] else ""
            hint = f"; openstack server start {one['id']} starts it" if one["status"] == "SHUTOFF" else ""
            hosts = [one["host"]] if one["host"] else []
            layer = "Nova compute" if hosts else "Nova scheduler"
            text = f"the server '{name}' is {one['status']}{fault}, not ACTIVE{hint}"
            found.append(problem(layer, text, *hosts, passes=one["status"] not in ENDED))
    return found


def port_problems(server: dict[str, Any]) -> list[Problem]:
    """Return what Neutron reports as wrong with the interfaces of a server that is ACTIVE for Nova."""
    name = server["name"]
    if not server["ports"]:
        return [problem("Neutron", f"the server '{name}' has no port")]
    found = []
    known = {interface["address"] for interface in server["interfaces"]}
    for port in server["ports"]:
        status = server["port_status"][port["port_id"]]
        if status != "ACTIVE":
            found.append(
                problem(
                    "OVN",
                    f"the port {port['port_id']} of the server '{name}' is {status}, not ACTIVE: OVN did not plug it",
                    server["host"],
                )
            )
        if port["address"] not in known:
            found.append(
                problem(
                    "Neutron",
                    f"Neutron gave the server '{name}' the address {port['address']}, Nova says {sorted(known)}",
                )
            )
    return found


def judge(state: dict[str, Any], computes: list[str], images: list[str], servers: list[str]) -> list[Problem]:
    """Return all problems in the parts of the state that could be read."""
    found: list[Problem] = []
    if "services" in state:
        found += service_problems(state["services"], computes)
    if "services" in state and "hypervisors" in state and "providers" in state:
        found += provider_problems(state["services"], state["hypervisors"], state["providers"], computes)
    if "agents" in state:
        found += agent_problems(state["agents"], computes)
    if "images" in state:
        found += image_problems(state["images"], images)
    faults = volume_service_faults(state.get("volume_services"))
    found += [problem(layer, text, *hosts, passes=passes) for layer, text, hosts, passes in faults]
    if "physical_networks" in state and "localnets" in state:
        texts = localnet.differences(state["physical_networks"], state["localnets"])
        found += [problem("OVN", text, passes=False) for text in texts]
    if "servers" in state:
        found += server_problems(state["servers"], servers)
    return found


def message(problems: list[Problem]) -> str:
    return "\n".join(["The cloud is not healthy:", *(f"- {one['layer']}: {one['message']}." for one in problems)])


def layers_here(problems: list[Problem], host: str) -> list[str]:
    """Return the layers with problems on this host, or on no host in particular."""
    return list(dict.fromkeys(one["layer"] for one in problems if not one["hosts"] or host in one["hosts"]))


# Waiting


class Unhealthy(Exception):
    """There are problems. The message lists them, with the last log lines of units on this host."""

    def __init__(self, problems: list[Problem]) -> None:
        layers = layers_here(problems, socket.gethostname())
        logs = layer_logs(layers, MANY_LINES if len(layers) < MANY else FEW_LINES)
        super().__init__(f"{message(problems)}\n{logs}".rstrip())
        self.problems = problems
        self.layer: str = problems[0]["layer"]


def look(
    api: CloudApi, computes: list[str], images: list[str], servers: list[str], silent: Sequence[str] = ()
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the state and all problems at this moment, except of hosts that are known to be silent."""
    state, problems = read_all(api, images)
    problems += judge(state, computes, images, servers)
    problems = [one for one in problems if not one["hosts"] or not {*one["hosts"]} <= {*silent}]
    for internal in ("providers", "ports", "physical_networks", "localnets"):
        state.pop(internal, None)
    return state, problems


def healthy(
    api: CloudApi,
    computes: list[str],
    images: list[str],
    servers: list[str],
    timeout: float,
    silent: Sequence[str] = (),
) -> tuple[dict[str, Any], bool]:
    """Wait until there is no problem. Returns the state, and whether it was healthy at once.

    A problem that does not pass by itself is raised soon, together with all others.
    """
    start = time.monotonic()
    first = True
    while True:
        state, problems = look(api, computes, images, servers, silent)
        if not problems:
            return state, first
        patience = timeout if all(one["passes"] for one in problems) else min(timeout, OTHERS_SECONDS)
        if time.monotonic() - start >= patience:
            raise Unhealthy(problems)
        first = False
        time.sleep(POLL_SECONDS)
