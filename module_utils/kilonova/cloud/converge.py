# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Bring the things inside a cloud to what is wanted, kind by kind. Used by the module cloud_resources.

Every method reads its kind once, works out what differs (plan.py), records it for the diff, and,
outside of check mode, applies it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.kilonova.cloud import plan
from ansible.module_utils.kilonova.cloud.api import CloudApi, CloudError, console_log, server_summary, tail

# What stands for the id of a thing that check mode would create.
PREDICTED = "(created by this run)"
POLL_SECONDS = 1.0
CONSOLE_LINES = 20
BOOT_LAYERS = ("Nova scheduler", "Nova conductor", "Nova compute", "Neutron")


class ServerFailed(CloudError):
    """A server did not become ACTIVE; ``layers`` are those whose logs tell why."""

    def __init__(self, message: str) -> None:
        super().__init__("Nova compute", message)
        self.layers = BOOT_LAYERS


@dataclass
class Converger:
    api: CloudApi
    project_id: str
    check_mode: bool
    server_timeout: int
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    ids: dict[str, dict[str, str]] = field(default_factory=dict)
    # What a dry run could not ask for; it goes on with what it can.
    blind: list[CloudError] = field(default_factory=list)

    def record(self, kind: str, name: str, action: str, before: Any, after: Any) -> None:
        self.actions.append(f"{kind} {name}: {action}")
        self.before[f"{kind} {name}"] = before
        self.after[f"{kind} {name}"] = after

    def keep(self, kind: str, name: str, identity: str) -> None:
        self.ids.setdefault(kind, {})[name] = identity

    def everything(self, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        """Converge all kinds. Returns the servers."""
        self.side_by_side(
            lambda part: part.flavors(wanted["flavors"]),
            lambda part: part.images(wanted["images"]),
            lambda part: part.networks(wanted["networks"]),
            lambda part: part.rules(wanted["security_group_rules"]),
            lambda part: part.keypairs(wanted["keypairs"]),
        )
        servers: list[dict[str, Any]] = []
        with self.seeing():
            servers = self.servers(wanted["servers"])
        return servers

    @contextmanager
    def seeing(self) -> Iterator[None]:
        """Let a dry run go on where a service cannot be asked, and remember the error."""
        try:
            yield
        except CloudError as error:
            if not (self.check_mode and error.blinds):
                raise
            self.blind.append(error)

    def side_by_side(self, *kinds: Callable[[Converger], None]) -> None:
        """Converge several kinds at the same time, none of which needs another's result.

        What they did is recorded in their order, also where one of them failed. The error is that of the first one
        that did.
        """
        parts = [Converger(self.api, self.project_id, self.check_mode, self.server_timeout) for _ in kinds]
        with ThreadPoolExecutor(max_workers=len(kinds)) as pool:
            calls = [pool.submit(kind, part) for kind, part in zip(kinds, parts, strict=True)]
        for part in parts:
            self.actions += part.actions
            self.warnings += part.warnings
            self.before |= part.before
            self.after |= part.after
            self.ids |= part.ids
        for call in calls:
            with self.seeing():
                call.result()

    # Flavors

    def flavors(self, wanted: list[dict[str, Any]]) -> None:
        existing = self.api.listing("compute", "/flavors/detail", "flavors", is_public="none") if wanted else []
        for one in wanted:
            current = plan.find_flavor(existing, one)
            if current is None:
                self._create_flavor(one)
                continue
            self.keep("flavor", one["name"], current["id"])
            changes = plan.flavor_difference(current, one)
            if changes:
                self.record("flavor", one["name"], "extra specs changed", changes.before, changes.after)
                if not self.check_mode:
                    self._set_extra_specs(current["id"], changes.before["extra_specs"], changes.after["extra_specs"])

    def _create_flavor(self, one: dict[str, Any]) -> None:
        self.record("flavor", one["name"], "created", None, one)
        self.keep("flavor", one["name"], one["id"] or PREDICTED)
        if self.check_mode:
            return
        body = {key: one[key] for key in ("name", "id", "vcpus", "ram", "disk", "swap")}
        body |= {"OS-FLV-EXT-DATA:ephemeral": one["ephemeral"], "os-flavor-access:is_public": one["public"]}
        flavor = self.api.post("compute", "/flavors", {"flavor": body})["flavor"]
        self.keep("flavor", one["name"], flavor["id"])
        self._set_extra_specs(flavor["id"], {}, one["extra_specs"] or {})

    def _set_extra_specs(self, flavor_id: str, current: dict[str, str], wanted: dict[str, str]) -> None:
        path = f"/flavors/{flavor_id}/os-extra_specs"
        for name in set(current) - set(wanted):
            self.api.delete("compute", f"{path}/{name}")
        if wanted and current != wanted:
            self.api.post("compute", path, {"extra_specs": wanted})

    # Images

    def images(self, wanted: list[dict[str, Any]]) -> None:
        for one in wanted:
            found = self.api.listing("image", "/images", "images", name=one["name"], owner=self.project_id)
            for broken in [image for image in found if image["status"] in ("queued", "saving", "killed")]:
                found.remove(broken)
                self.record("image", broken["id"], "removed, its upload was not finished", one["name"], None)
                if not self.check_mode:
                    self.api.delete("image", f"/images/{broken['id']}")
            current = plan.the_one("image", one["name"], found)
            reason = "it does not exist" if current is None else self._upload_reason(current, one)
            if reason:
                self._upload(one, current, reason)
            elif current is not None:
                self._update_image(one, current)

    def _upload_reason(self, current: dict[str, Any], one: dict[str, Any]) -> str:
        if self.check_mode and not os.path.exists(one["path"]):
            self.warnings.append(f"{one['path']} does not exist yet, so check mode cannot compare it with the image.")
            return ""
        self._require_file(one)
        return plan.image_content_differs(current, one)

    def _require_file(self, one: dict[str, Any]) -> None:
        if not os.path.isfile(one["path"]):
            raise plan.PlanError(f"the file {one['path']} of the image '{one['name']}' does not exist on this host.")
        if one["sha256"] and plan.file_digest(one["path"], "sha256") != one["sha256"].lower():
            raise plan.PlanError(
                f"{one['path']} does not have the sha256 {one['sha256']} that is wanted for the image '{one['name']}'. "
                "The file is damaged or another one; get it again or correct the sha256."
            )

    def _update_image(self, one: dict[str, Any], current: dict[str, Any]) -> None:
        self.keep("image", one["name"], current["id"])
        changes = plan.image_difference(current, one)
        if not changes:
            return
        self.record("image", one["name"], "changed", changes.before, changes.after)
        if not self.check_mode:
            self.api.request(
                "image",
                "PATCH",
                f"/images/{current['id']}",
                json=plan.image_patch(current, changes),
                headers={"Content-Type": "application/openstack-images-v2.1-json-patch"},
            )

    def _upload(self, one: dict[str, Any], replaced: dict[str, Any] | None, reason: str) -> None:
        old = {"id": replaced["id"], "hash": replaced.get("os_hash_value")} if replaced else None
        self.record("image", one["name"], f"uploaded ({reason})", old, {"path": one["path"]})
        self.keep("image", one["name"], PREDICTED)
        if self.check_mode:
            return
        self._require_file(one)
        names = ("name", "disk_format", "container_format", "visibility", "min_disk", "min_ram")
        body = {name: one[name] for name in names} | {k: str(v) for k, v in (one["properties"] or {}).items()}
        image = self.api.post("image", "/images", body)
        path = f"/images/{image['id']}"
        try:
            with open(one["path"], "rb") as stream:
                self.api.request(
                    "image", "PUT", f"{path}/file", data=stream, headers={"Content-Type": "application/octet-stream"}
                )
            stored = self.api.get("image", path)
            if stored["status"] != "active" or plan.image_content_differs(stored, one):
                raise CloudError(
                    "Glance",
                    f"the image '{one['name']}' is {stored['status']} after its upload, with the "
                    f"{stored.get('os_hash_algo')} {stored.get('os_hash_value')}, which is not that of {one['path']}.",
                )
        except CloudError:
            self.api.delete("image", path)
            raise
        self.keep("image", one["name"], image["id"])
        if replaced:
            self._retire_image(replaced)

    def _retire_image(self, image: dict[str, Any]) -> None:
        """Delete an image that was replaced, or, while servers were made of it, hide it from listings."""
        users = self.api.listing("compute", "/servers", "servers", image=image["id"], all_tenants="true", limit=1)
        if not users and not image.get("protected"):
            self.api.delete("image", f"/images/{image['id']}")
            return
        self.api.request(
            "image",
            "PATCH",
            f"/images/{image['id']}",
            json=[{"op": "replace" if "os_hidden" in image else "add", "path": "/os_hidden", "value": True}],
            headers={"Content-Type": "application/openstack-images-v2.1-json-patch"},
        )
        self.warnings.append(f"The replaced image {image['id']} is hidden, not deleted: servers were made of it.")

    # Networks and subnets

    def networks(self, wanted: list[dict[str, Any]]) -> None:
        for one in wanted:
            found = self.api.listing("network", "/networks", "networks", name=one["name"], project_id=self.project_id)
            current = plan.the_one("network", one["name"], found)
            body = {key: value for key, value in plan.network_fields(one).items() if value is not None}
            if current is None:
                body |= {key: value for key, value in plan.network_provider(one).items() if value is not None}
                self.record("network", one["name"], "created", None, body)
                if self.check_mode:
                    current = {"id": PREDICTED}
                else:
                    body["name"] = one["name"]
                    current = self.api.post("network", "/networks", {"network": body})["network"]
            else:
                changes = plan.network_difference(current, one)
                if changes:
                    self.record("network", one["name"], "changed", changes.before, changes.after)
                    if not self.check_mode:
                        self.api.put("network", f"/networks/{current['id']}", {"network": changes.after})
            self.keep("network", one["name"], current["id"])
            self._subnets(current["id"], one["subnets"] or [])

    def _subnets(self, network_id: str, wanted: list[dict[str, Any]]) -> None:
        existing: list[dict[str, Any]] = []
        if wanted and network_id != PREDICTED:
            existing = self.api.listing("network", "/subnets", "subnets", network_id=network_id)
        for one in wanted:
            fields = plan.subnet_fields(one)
            current = next((subnet for subnet in existing if subnet["cidr"] == one["cidr"]), None)
            namesake = next((subnet for subnet in existing if subnet["name"] == one["name"]), None)
            if current is None and namesake is not None:
                raise plan.PlanError(
                    f"the subnet '{one['name']}' has the range {namesake['cidr']}, wanted is {one['cidr']}, and "
                    "Neutron cannot change that. Delete the subnet with its servers, or keep fixed_range as it was."
                )
            if current is None:
                self._create_subnet(network_id, one, fields)
                continue
            self.keep("subnet", one["name"], current["id"])
            changes = plan.subnet_difference(current, one)
            if changes:
                self.record("subnet", one["name"], "changed", changes.before, changes.after)
                if not self.check_mode:
                    self.api.put("network", f"/subnets/{current['id']}", {"subnet": changes.after})

    def _create_subnet(self, network_id: str, one: dict[str, Any], fields: dict[str, Any]) -> None:
        body = fields | {"cidr": one["cidr"], "ip_version": 4}
        self.record("subnet", one["name"], "created", None, body)
        self.keep("subnet", one["name"], PREDICTED)
        if not self.check_mode:
            subnet = self.api.post("network", "/subnets", {"subnet": body | {"network_id": network_id}})["subnet"]
            self.keep("subnet", one["name"], subnet["id"])

    # Security group rules

    def rules(self, wanted: list[dict[str, Any]]) -> None:
        if not wanted:
            return
        groups = self.api.listing("network", "/security-groups", "security_groups", project_id=self.project_id)
        for name in dict.fromkeys(one["group"] for one in wanted):
            current = plan.the_one("security group", name, [group for group in groups if group["name"] == name])
            if current is None:
                self.record("security group", name, "created", None, {"name": name})
                current = {"id": PREDICTED, "security_group_rules": []}
                if not self.check_mode:
                    answer = self.api.post("network", "/security-groups", {"security_group": {"name": name}})
                    current = answer["security_group"]
            self.keep("security group", name, current["id"])
            for one in [rule for rule in wanted if rule["group"] == name]:
                if plan.rule_exists(current["security_group_rules"], one):
                    continue
                fields = plan.rule_fields(one)
                self.record("security group rule", f"{name}: {plan.rule_text(one)}", "created", None, fields)
                if not self.check_mode:
                    body = {"security_group_rule": fields | {"security_group_id": current["id"]}}
                    self.api.post("network", "/security-group-rules", body)

    # Keypairs

    def keypairs(self, wanted: list[dict[str, Any]]) -> None:
        existing = self.api.listing("compute", "/os-keypairs", "keypairs") if wanted else []
        known = {item["keypair"]["name"]: item["keypair"] for item in existing}
        for one in wanted:
            name, current = one["name"], known.get(one["name"])
            public_key = one["public_key"] or self._public_key_of(one["public_key_file"])
            if public_key is None:
                self.record("keypair", name, "created", None, {"public_key_file": one["public_key_file"]})
                continue
            problem = plan.public_key_problem(public_key)
            if problem:
                raise plan.PlanError(f"the public key of the keypair '{name}' cannot be used: {problem}.")
            if current and plan.same_key(current["public_key"], public_key):
                continue
            before = {"public_key": current["public_key"].strip()} if current else None
            action = "replaced" if current else "created"
            self.record("keypair", name, action, before, {"public_key": public_key.strip()})
            if self.check_mode:
                continue
            if current:
                self.api.delete("compute", f"/os-keypairs/{name}")
            body = {"name": name, "type": "ssh", "public_key": public_key.strip()}
            self.api.post("compute", "/os-keypairs", {"keypair": body})

    def _public_key_of(self, path: str) -> str | None:
        """The key in a file; None in check mode when the file is not there yet."""
        try:
            with open(path, encoding="utf-8") as stream:
                return stream.read()
        except FileNotFoundError:
            if self.check_mode:
                return None
            raise plan.PlanError(f"the public key file {path} does not exist on this host.") from None

    # Servers

    def servers(self, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Begin with all of them, so that they boot side by side, then wait for each."""
        begun = [self._remove_server(one) if one.get("state") == "absent" else self._server(one) for one in wanted]
        found = []
        for current, waiting in begun:
            if current is None:
                continue
            if waiting and current["status"] == "DELETING":
                self._wait_deleted(current)
            else:
                found.append(server_summary(self._wait_active(current, self.server_timeout) if waiting else current))
        return found

    def _find_server(self, name: str) -> dict[str, Any] | None:
        # Nova takes the name filter as a regular expression and finds "my_vm2" for "my_vm".
        found = self.api.listing("compute", "/servers/detail", "servers", name=name)
        found = [server for server in found if server["name"] == name and server["status"] not in plan.DELETED_STATES]
        return plan.the_one("server", name, found)

    def _remove_server(self, one: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
        """Begin to delete a server. Returns it and whether it is to be waited for."""
        current = self._find_server(one["name"])
        if current is None:
            return None, False
        self.record("server", one["name"], "deleted", server_summary(current), None)
        if self.check_mode:
            return None, False
        self.api.delete("compute", f"/servers/{current['id']}")
        return current | {"status": "DELETING"}, True

    def _server(self, one: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
        """Begin to bring one server up. Returns it, None in check mode, and whether it is to be waited for."""
        name = one["name"]
        current = self._find_server(name)
        action = plan.server_action(current)
        if action == "report" and current is not None:
            raise self._failure(
                current,
                f"the server '{name}' is in ERROR, but it ran before ({current['OS-SRV-USG:launched_at']}) and may "
                "hold data, so it is not made anew. Look at it; then reset it (openstack server set --state active "
                f"{current['id']}; openstack server reboot --hard {current['id']}) or delete it.",
            )
        if action == "recreate" and current is not None:
            fault = server_summary(current)["fault"]
            gone = {"id": current["id"], "fault": fault}
            self.record("server", name, "deleted, it was in ERROR and never ran", gone, None)
            self.warnings.append(f"The server '{name}' was in ERROR and never ran ({fault}); it is made anew.")
            if not self.check_mode:
                self._delete_server(current)
        if action in ("create", "recreate"):
            current = self._create_server(one)
        elif action == "wait":
            self.warnings.append(f"The server '{name}' was being built already; waited for it.")
        return current, action != "keep" and not self.check_mode

    def _create_server(self, one: dict[str, Any]) -> dict[str, Any] | None:
        body: dict[str, Any] = {"name": one["name"]}
        shown = {key: one[key] for key in ("image", "flavor", "networks", "keypair", "security_groups")}
        if one.get("host"):
            shown["host"] = body["host"] = one["host"]
        self.record("server", one["name"], "created", None, shown)
        if self.check_mode:
            return None
        body["imageRef"] = self._id_of("image", one["image"], "image", "/images", "images")
        body["flavorRef"] = self._id_of("flavor", one["flavor"], "compute", "/flavors", "flavors")
        body["networks"] = [
            {"uuid": self._id_of("network", name, "network", "/networks", "networks")} for name in one["networks"]
        ]
        body["security_groups"] = [{"name": name} for name in one["security_groups"]]
        if one["keypair"]:
            body["key_name"] = one["keypair"]
        server_id = self.api.post("compute", "/servers", {"server": body})["server"]["id"]
        return {"id": server_id, "name": one["name"], "status": "BUILD"}

    def _id_of(self, kind: str, name: str, service: str, path: str, key: str) -> str:
        """The id that an earlier step of this run knows, or else the one that the service knows."""
        known = self.ids.get(kind, {}).get(name)
        if known:
            return known
        found = [item for item in self.api.listing(service, path, key) if item["name"] == name]
        one = plan.the_one(kind, name, found)
        if one is None:
            raise plan.PlanError(
                f"there is no {kind} '{name}' for the server. Name one of those that exist, or describe it."
            )
        return str(one["id"])

    def _delete_server(self, server: dict[str, Any]) -> None:
        self.api.delete("compute", f"/servers/{server['id']}")
        self._wait_deleted(server)

    def _wait_deleted(self, server: dict[str, Any]) -> None:
        def gone() -> bool:
            try:
                self.api.get("compute", f"/servers/{server['id']}")
            except CloudError as error:
                if error.status == 404:
                    return True
                raise
            return False

        if not wait_until(gone, self.server_timeout):
            raise ServerFailed(f"the server {server['id']} was not deleted within {self.server_timeout} s.")

    def _wait_active(self, server: dict[str, Any], timeout: int) -> dict[str, Any]:
        latest = server

        def settled() -> bool:
            nonlocal latest
            latest = self.api.get("compute", f"/servers/{server['id']}")["server"]
            return latest["status"] != "BUILD"

        if not wait_until(settled, timeout):
            task = latest.get("OS-EXT-STS:task_state") or "none"
            raise self._failure(
                latest, f"the server '{server['name']}' is still being built after {timeout} s (its task: {task})."
            )
        if latest["status"] == "ERROR":
            raise self._failure(latest, f"the server '{server['name']}' went to ERROR.")
        return latest

    def _failure(self, server: dict[str, Any], message: str) -> ServerFailed:
        summary = server_summary(server)
        lines = [message]
        if summary["fault"]:
            lines.append(f"Nova's reason: {summary['fault']}")
        lines.append(f"Host: {summary['host'] or 'none was chosen'}.")
        try:
            console = list(tail(console_log(self.api, server["id"]), CONSOLE_LINES))
        except CloudError:
            console = []  # A server without a host has no console; the message says that it has no host.
        if console:
            lines += ["--- the guest's console:", *console]
        return ServerFailed("\n".join(lines))


def wait_until(condition: Callable[[], bool], timeout: float, interval: float = POLL_SECONDS) -> bool:
    """Ask until the condition holds or the time is over; whether it held."""
    deadline = time.monotonic() + timeout
    while True:
        if condition():
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval)
