# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Converge servers, and wait for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.kilonova.cloud import plan
from ansible.module_utils.kilonova.cloud.api import CloudApi, CloudError, console_log, server_summary, tail
from ansible.module_utils.kilonova.cloud.converge import Convergence

POLL_SECONDS = 1.0
CONSOLE_LINES = 20
LAYER = "Nova compute"
BOOT_LAYERS = ("Nova scheduler", "Nova conductor", "Nova compute", "Neutron")


class ServerFailed(CloudError):
    """A server did not become ACTIVE. ``layers`` are those whose logs explain it."""

    def __init__(self, message: str) -> None:
        super().__init__(LAYER, message)
        self.layers = BOOT_LAYERS


@dataclass
class Step:
    """What to do about one server: create, recreate, delete, wait or keep."""

    wanted: dict[str, Any]
    action: str
    server: dict[str, Any] | None
    request: dict[str, Any] = field(default_factory=dict)


def converge_servers(work: Convergence, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Converge servers and return those that exist. Changes nothing while the operator has to resolve something."""
    steps = []
    for one in wanted:
        with work.resolving():
            steps.append(_plan(work, one))
    if work.must_stop:
        return []
    # Begin with all of them, so that they boot side by side.
    for step in steps:
        _begin(work, step)
    servers = [_finish(work, step) for step in steps]
    return [server_summary(server) for server in servers if server is not None]


def _plan(work: Convergence, one: dict[str, Any]) -> Step:
    current = _find(work.api, one["name"])
    if one.get("state") == "absent":
        return Step(one, "delete" if current else "keep", current)
    action = plan.server_action(current)
    if action == "report" and current is not None:
        raise _unresolved(work, current)
    request = _request(work, one) if action in ("create", "recreate") else {}
    if one.get("only_if_room") and action == "create" and not _has_room(work.api, one["host"], request["flavorRef"]):
        work.without_room.append(one["name"])
        action = "keep"
    return Step(one, action, current, request)


def _has_room(api: CloudApi, host: str, flavor_id: str) -> bool:
    """Return whether Placement would let a server of the flavor run on the host. Without the host, let Nova explain."""
    flavor = api.get("compute", f"/flavors/{flavor_id}")["flavor"]
    swap_gib = -(-int(flavor["swap"] or 0) // 1024)
    amounts = {
        "VCPU": flavor["vcpus"],
        "MEMORY_MB": flavor["ram"],
        "DISK_GB": flavor["disk"] + flavor["OS-FLV-EXT-DATA:ephemeral"] + swap_gib,
    }
    resources = ",".join(f"{name}:{amount}" for name, amount in amounts.items() if amount)
    # A hypervisor's id is that of its resource provider.
    hypervisors = api.listing("compute", "/os-hypervisors/detail", "hypervisors")
    found = [one["id"] for one in hypervisors if one["service"]["host"] == host]
    return not found or any(
        api.get("placement", "/allocation_candidates", resources=resources, in_tree=identity)["allocation_requests"]
        for identity in found
    )


def _begin(work: Convergence, step: Step) -> None:
    if step.server is not None and step.action in ("delete", "recreate"):
        _delete(work, step, step.server)
    if step.action == "wait":
        work.warnings.append(f"The server '{step.wanted['name']}' was already being built.")
    if step.action in ("create", "recreate"):
        _create(work, step)


def _finish(work: Convergence, step: Step) -> dict[str, Any] | None:
    """Wait for the step to take effect. Returns the server, None if there is none."""
    if step.server is None or step.action == "keep" or work.check_mode:
        return step.server if step.action in ("keep", "wait") else None
    if step.action == "delete":
        _wait_deleted(work, step.server["id"])
        return None
    return _wait_active(work, step.server)


def _find(api: CloudApi, name: str) -> dict[str, Any] | None:
    # Nova takes the name filter as a regular expression and finds "my_vm2" for "my_vm".
    found = api.listing("compute", "/servers/detail", "servers", name=name)
    found = [server for server in found if server["name"] == name and server["status"] not in plan.DELETED_STATES]
    return plan.the_one("server", name, found)


def _unresolved(work: Convergence, server: dict[str, Any]) -> plan.PlanError:
    identity, launched = server["id"], server["OS-SRV-USG:launched_at"]
    return plan.PlanError(
        f"the server '{server['name']}' is in ERROR, but it ran before ({launched}) and may hold data, so it is not "
        "recreated. Look at it; then reset it (openstack server set --state active "
        f"{identity}; openstack server reboot --hard {identity}) or delete it.",
        details="" if work.check_mode else "\n".join(_evidence(work.api, server)),
        layer=LAYER,
        log_layers=BOOT_LAYERS,
    )


def _request(work: Convergence, one: dict[str, Any]) -> dict[str, Any]:
    """Return the request that creates a server."""
    body: dict[str, Any] = {"name": one["name"]}
    with work.seeing():
        body["imageRef"] = _id_of(work, "image", one["image"], "image", "/images", "images")
        body["flavorRef"] = _id_of(work, "flavor", one["flavor"], "compute", "/flavors", "flavors")
        body["networks"] = [
            {"uuid": _id_of(work, "network", name, "network", "/networks", "networks")} for name in one["networks"]
        ]
    body["security_groups"] = [{"name": name} for name in one["security_groups"]]
    if one["keypair"]:
        body["key_name"] = one["keypair"]
    if one.get("host"):
        body["host"] = one["host"]
    return body


def _id_of(work: Convergence, kind: str, name: str, service: str, path: str, key: str) -> str:
    """Return the id from an earlier step of this call, or else from the service."""
    known = work.ids.get(kind, {}).get(name)
    if known:
        return known
    found = [item for item in work.api.listing(service, path, key) if item["name"] == name]
    one = plan.the_one(kind, name, found)
    if one is None:
        raise plan.PlanError(
            f"there is no {kind} '{name}' for the server. Name one of those that exist, or describe it."
        )
    return str(one["id"])


def _delete(work: Convergence, step: Step, server: dict[str, Any]) -> None:
    name, fault = step.wanted["name"], server_summary(server)["fault"]
    if step.action == "delete":
        work.record("server", name, "deleted", server_summary(server), None)
    else:
        gone = {"id": server["id"], "fault": fault}
        work.record("server", name, "deleted, it was in ERROR and never ran", gone, None)
        work.warnings.append(f"The server '{name}' was in ERROR and never ran ({fault}); it is recreated.")
    if work.check_mode:
        return
    work.api.delete("compute", f"/servers/{server['id']}")
    if step.action == "recreate":
        _wait_deleted(work, server["id"])


def _create(work: Convergence, step: Step) -> None:
    one = step.wanted
    shown = {key: one[key] for key in ("image", "flavor", "networks", "keypair", "security_groups")}
    work.record("server", one["name"], "created", None, shown | ({"host": one["host"]} if one.get("host") else {}))
    if not work.check_mode:
        identity = work.api.post("compute", "/servers", {"server": step.request})["server"]["id"]
        step.server = {"id": identity, "name": one["name"], "status": "BUILD"}


def _wait_deleted(work: Convergence, identity: str) -> None:
    def gone() -> bool:
        try:
            work.api.get("compute", f"/servers/{identity}")
        except CloudError as error:
            if error.status == 404:
                return True
            raise
        return False

    if not wait_until(gone, work.server_timeout):
        raise ServerFailed(f"the server {identity} was not deleted within {work.server_timeout} s.")


def _wait_active(work: Convergence, server: dict[str, Any]) -> dict[str, Any]:
    latest = server

    def settled() -> bool:
        nonlocal latest
        latest = work.api.get("compute", f"/servers/{server['id']}")["server"]
        return latest["status"] != "BUILD"

    problem = ""
    if not wait_until(settled, work.server_timeout):
        task = latest.get("OS-EXT-STS:task_state") or "none"
        problem = f"is still being built after {work.server_timeout} s (its task: {task})."
    elif latest["status"] == "ERROR":
        problem = "went to ERROR."
    if problem:
        raise ServerFailed("\n".join([f"the server '{server['name']}' {problem}", *_evidence(work.api, latest)]))
    return latest


def _evidence(api: CloudApi, server: dict[str, Any]) -> list[str]:
    """Return the lines that explain a server's failure: Nova's reason, its host, and the end of its console."""
    summary = server_summary(server)
    lines = [f"Nova's reason: {summary['fault']}"] if summary["fault"] else []
    lines.append(f"Host: {summary['host'] or 'none was chosen'}.")
    try:
        console = list(tail(console_log(api, server["id"]), CONSOLE_LINES))
    except CloudError:
        console = []  # A server without a host has no console.
    return lines + (["--- the guest's console:", *console] if console else [])


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Wait for the condition to hold; return whether it did in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
