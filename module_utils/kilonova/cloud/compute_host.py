# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Enable, disable, drain, evacuate or remove a compute. The logic of the module compute_host."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.api import CloudApi, CloudError, layer_logs
from ansible.module_utils.kilonova.cloud.client import CLIENT_ARGUMENTS, connect
from ansible.module_utils.kilonova.cloud.controller_services import remove_agents

ARGUMENT_SPEC: dict[str, Any] = {
    **CLIENT_ARGUMENTS,
    "name": {"type": "str", "required": True},
    "state": {
        "type": "str",
        "default": "enabled",
        "choices": ["enabled", "disabled", "drained", "evacuated", "removed"],
    },
    "disks": {"type": "str", "default": "local", "choices": ["local", "shared"]},
    "lose_disks": {"type": "bool", "default": False},
    "must_exist": {"type": "bool", "default": True},
    "reason": {"type": "str", "default": "maintenance"},
    "timeout": {"type": "int", "default": 1800},
}
BINARY = "nova-compute"
# Earlier versions give no reason for a failed event.
DETAILS_MICROVERSION = "2.84"
POLL_SECONDS = 2.0
# Of Nova, on a provider in Placement that the scheduler does not choose.
DISABLED_TRAIT = "COMPUTE_STATUS_DISABLED"
# nova-compute corrects the trait each minute.
ENABLE_SECONDS = 180.0
# How long Nova waits for a report of nova-compute (service_down_time), and as much again.
DOWN_SECONDS = 120.0
BAD_REQUEST = 400
LIVE = ("ACTIVE", "PAUSED")
COLD = ("SHUTOFF",)
# The last: by an earlier run.
EVACUATED = ("ACTIVE", "SHUTOFF", "ERROR", "REBUILD")
GONE = ("DELETED", "SOFT_DELETED", "SHELVED_OFFLOADED")


class Refused(Exception):
    """Guests prevent the change; ``servers`` lists them."""

    def __init__(self, message: str, servers: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.servers = servers


def brief(server: dict[str, Any], why: str) -> dict[str, Any]:
    return {"id": server["id"], "name": server["name"], "status": server["status"], "why": why}


def lines(servers: list[dict[str, Any]]) -> str:
    return "\n".join(f"- {one['name']} ({one['id']}, {one['status']}): {one['why']}" for one in servers)


def obstacle(server: dict[str, Any]) -> str:
    """Return why a guest cannot be moved; empty when it can."""
    task = server.get("OS-EXT-STS:task_state")
    if task:
        return f"Nova is busy with it ({task}); wait until that is over"
    if server["status"] == "VERIFY_RESIZE":
        return "a resize waits for its owner's confirmation (openstack server resize confirm, or revert)"
    if server["status"] not in (*LIVE, *COLD):
        return "Nova moves only guests that are active, paused or shut off; start, stop or delete it"
    return ""


def disk_is_lost(server: dict[str, Any]) -> bool:
    """Return whether the disk of a guest was on its compute: it did not boot from a volume."""
    return bool(server.get("image"))


@dataclass
class Compute:
    """One compute in Nova and Neutron."""

    api: CloudApi
    name: str
    check_mode: bool = False
    actions: list[str] = field(default_factory=list)
    moved: list[dict[str, Any]] = field(default_factory=list)
    confirmed: set[str] = field(default_factory=set)
    evacuating: bool = False
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep

    def services(self) -> list[dict[str, Any]]:
        return self.api.listing("compute", "/os-services", "services", binary=BINARY)

    def service(self) -> dict[str, Any] | None:
        return next((one for one in self.services() if one["host"] == self.name), None)

    def existing(self) -> dict[str, Any]:
        found = self.service()
        if found is None:
            known = ", ".join(sorted(one["host"] for one in self.services())) or "none"
            raise CloudError("Nova API", f"Nova knows no compute '{self.name}'. It knows: {known}.", 404)
        return found

    def guests(self) -> list[dict[str, Any]]:
        found = self.api.listing("compute", "/servers/detail", "servers", all_tenants="1", host=self.name)
        return [one for one in found if one["status"] not in GONE]

    def set_status(self, status: str, reason: str = "") -> None:
        service = self.existing()
        if service["status"] == status and (not reason or service.get("disabled_reason") == reason):
            return
        if not self.check_mode:
            body = {"status": status} | ({"disabled_reason": reason} if reason else {})
            self.api.put("compute", f"/os-services/{service['id']}", body)
        self.actions.append(f"{self.name}: {status}" + (f" ({reason})" if reason else ""))

    def force_down(self, down: bool) -> None:
        """Tell Nova that the compute is down whatever it reports, or that it counts again."""
        service = self.existing()
        if bool(service.get("forced_down")) == down:
            return
        start = self.clock()
        while not self.check_mode:
            try:
                self.api.put("compute", f"/os-services/{service['id']}", {"forced_down": down})
                break
            except CloudError as error:
                # Until the compute, back again, has removed the guests that were evacuated.
                if error.status != BAD_REQUEST or down or self.clock() - start > ENABLE_SECONDS:
                    raise
                self.pause(POLL_SECONDS)
        self.actions.append(f"{self.name}: {'forced down' if down else 'no longer forced down'}")
        # The scheduler chooses it from its next report on.
        while not self.check_mode and not down and self.existing()["state"] != "up":
            if self.clock() - start > ENABLE_SECONDS:
                raise CloudError(
                    "Nova compute", f"nova-compute on {self.name} does not report to Nova. Start it there."
                )
            self.pause(POLL_SECONDS)

    def wait_chosen(self) -> None:
        """Wait until the scheduler can choose the compute.

        When nova-compute updates its provider at the same time, Nova leaves the trait until nova-compute's next update
        (set_host_enabled in nova/virt/libvirt/driver.py). A compute that is down corrects it when it comes back.
        """
        start = self.clock()
        while self.existing()["state"] == "up" and self.is_kept_back():
            if self.clock() - start > ENABLE_SECONDS:
                raise CloudError(
                    "Nova compute",
                    f"{self.name} is enabled, and Placement still has the trait {DISABLED_TRAIT} on it after "
                    f"{ENABLE_SECONDS:.0f} s, so that the scheduler does not choose it. Restart nova-compute there.",
                )
            self.pause(POLL_SECONDS)

    def is_kept_back(self) -> bool:
        """Return whether a provider of this compute has the trait of a disabled one."""
        providers = self.api.get("placement", "/resource_providers", name=self.name)["resource_providers"]
        return any(
            DISABLED_TRAIT in self.api.get("placement", f"/resource_providers/{one['uuid']}/traits")["traits"]
            for one in providers
        )

    def another_is_up(self) -> bool:
        """Return whether another compute can take guests."""
        return any(
            one["host"] != self.name and (one["status"], one["state"]) == ("enabled", "up") for one in self.services()
        )

    def drain(self, reason: str, timeout: float) -> None:
        self.existing()
        guests = self.guests()
        stuck = [brief(one, why) for one in guests if (why := obstacle(one))]
        if not stuck and guests and not self.another_is_up():
            stuck = [brief(one, "no other compute is enabled and up") for one in guests]
        if stuck:
            raise Refused(f"{self.name} cannot be drained, and nothing was changed:\n{lines(stuck)}", stuck)
        self.set_status("disabled", reason)
        if self.check_mode:
            self.actions += [f"{one['name']}: moved away" for one in guests]
            return
        failed = self.move(guests, timeout)
        if failed:
            raise Refused(
                f"{self.name} is disabled, and {len(self.moved)} guests moved, but these did not:\n{lines(failed)}",
                failed,
            )

    def evacuate(self, local: bool, lose_disks: bool, timeout: float) -> None:
        """Start the guests of a compute that died on others.

        local: whether disks of guests were files of the compute.
        """
        self.existing()
        guests = self.guests()
        stuck = [
            brief(one, "Nova evacuates only guests that are active, shut off or in ERROR")
            for one in guests
            if one["status"] not in EVACUATED
        ]
        lost = [one for one in guests if local and not lose_disks and disk_is_lost(one)]
        stuck += [
            brief(one, "its disk is a file of this compute and would be made anew from its image") for one in lost
        ]
        if not stuck and guests and not self.another_is_up():
            stuck = [brief(one, "no other compute is enabled and up") for one in guests]
        if stuck:
            raise Refused(f"{self.name} is not evacuated, and nothing was changed:\n{lines(stuck)}", stuck)
        if not self.check_mode:
            # Otherwise a guest runs twice, and writes to its disk twice.
            self.wait_down(DOWN_SECONDS)
        self.force_down(True)
        if self.check_mode:
            self.actions += [f"{one['name']}: evacuated" for one in guests]
            return
        self.evacuating = True
        failed = self.move(guests, timeout)
        if failed:
            raise Refused(
                f"{self.name} is forced down, and {len(self.moved)} guests were evacuated, but these were not:\n"
                f"{lines(failed)}",
                failed,
            )

    def move(self, guests: list[dict[str, Any]], timeout: float) -> list[dict[str, Any]]:
        """Move the guests away side by side. Returns those that did not move."""
        start = self.clock()
        waiting = {}
        failed = []
        for guest in guests:
            on_its_way = self.evacuating and guest["status"] == "REBUILD"
            refusal = None if on_its_way else self.ask(guest, self.request_to_move(guest))
            if refusal is None:
                waiting[guest["id"]] = guest
            elif refusal:
                failed.append(brief(guest, refusal))
        while waiting:
            for guest in list(waiting.values()):
                outcome = self.outcome(guest, start)
                if outcome is None:
                    continue
                del waiting[guest["id"]]
                if outcome:
                    failed.append(brief(guest, outcome))
            if waiting and self.clock() - start > timeout:
                return failed + [brief(guest, f"still moving after {timeout:.0f} s") for guest in waiting.values()]
            if waiting:
                self.pause(POLL_SECONDS)
        return failed

    def request_to_move(self, guest: dict[str, Any]) -> dict[str, Any]:
        if self.evacuating:
            return {"evacuate": {}}
        if guest["status"] in LIVE:
            # A disk that both computes reach stays where it is.
            return {"os-migrateLive": {"host": None, "block_migration": "auto"}}
        return {"migrate": None}

    def ask(self, guest: dict[str, Any], body: dict[str, Any]) -> str | None:
        """Ask Nova to act on a guest. Returns None when accepted, '' when the guest is gone, else the refusal."""
        try:
            self.api.request("compute", "POST", f"/servers/{guest['id']}/action", json=body)
        except CloudError as error:
            if error.logs_matter:
                raise
            return "" if error.status == 404 else str(error)
        return None

    def outcome(self, guest: dict[str, Any], start: float) -> str | None:
        """Return None while a guest moves, '' when it has moved or is gone, else why it did not move."""
        try:
            return self.progress(guest, start)
        except CloudError as error:
            if error.status == 404:
                return ""  # Deleted by its owner.
            raise

    def progress(self, guest: dict[str, Any], start: float) -> str | None:
        """Like outcome(), but raises CloudError when the guest is gone."""
        path = f"/servers/{guest['id']}"
        now = self.api.get("compute", path)["server"]
        how = "by evacuation" if self.evacuating else "live" if guest["status"] in LIVE else "cold"
        if now["status"] == "VERIFY_RESIZE" and not now.get("OS-EXT-STS:task_state"):
            # The state stays until Nova has confirmed; a second request would be refused.
            if guest["id"] in self.confirmed:
                return None
            self.confirmed.add(guest["id"])
            return self.ask(guest, {"confirmResize": None})
        if now.get("OS-EXT-STS:task_state") or now["status"] in ("MIGRATING", "REBUILD", "RESIZE", "VERIFY_RESIZE"):
            return None
        to = now.get("OS-EXT-SRV-ATTR:host") or ""
        if now["status"] in GONE:
            return ""
        if now["status"] == "ERROR":
            fault = (now.get("fault") or {}).get("message") or "Nova does not say why"
            return f"it went to ERROR on {to or 'no compute'}: {fault}"
        if to == self.name:
            return self.failure(guest["id"])
        if how == "live" and self.api.get("compute", f"{path}/migrations")["migrations"]:
            return None  # The old compute still cleans up. If it were stopped now, the migration would not end.
        seconds = round(self.clock() - start)
        self.moved.append({"id": guest["id"], "name": guest["name"], "how": how, "to": to, "seconds": seconds})
        self.actions.append(f"{guest['name']}: moved {how} to {to} in {seconds} s")
        return ""

    def failure(self, server_id: str) -> str | None:
        """Return why the last move failed, from Nova's record; None before there is one."""
        found = self.api.get("compute", f"/servers/{server_id}/os-instance-actions")["instanceActions"]
        last = next((one for one in found if one["action"] in ("evacuate", "live-migration", "migrate")), None)
        if last is None:
            return None
        details = self.api.request(
            "compute",
            "GET",
            f"/servers/{server_id}/os-instance-actions/{last['request_id']}",
            headers={"OpenStack-API-Version": f"compute {DETAILS_MICROVERSION}"},
        ).json()
        events = details["instanceAction"].get("events") or []
        # The event that began last is listed first and has the cause; the others pass it on.
        errors = [one.get("details") or f"{one['event']} failed" for one in events if one["result"] == "Error"]
        if not errors and not all(one.get("finish_time") for one in events):
            return None
        return " ".join(errors[0].split()) if errors else "Nova did not move it and does not say why"

    def remove(self, timeout: float) -> None:
        service = self.service()
        guests = self.guests()
        if guests:
            why = [brief(one, "it would lose its compute; drain or evacuate it first") for one in guests]
            raise Refused(f"{self.name} has guests and is not removed:\n{lines(why)}", why)
        if service is not None:
            if not self.check_mode:
                self.wait_down(timeout)
                self.api.delete("compute", f"/os-services/{service['id']}")
            self.actions.append(f"{self.name}: removed from Nova")
        self.actions += remove_agents(self.api, self.name, self.check_mode)

    def wait_down(self, timeout: float) -> None:
        """Wait until the compute is down. While it reports, Nova would register it again, without its cell mapping."""
        start = self.clock()
        while self.existing()["state"] == "up":
            if self.clock() - start > timeout:
                raise CloudError(
                    "Nova compute",
                    f"nova-compute on {self.name} still reports to Nova. Stop it first (systemctl disable --now "
                    "nova-compute).",
                )
            self.pause(POLL_SECONDS)


def run(module: AnsibleModule) -> None:
    params = module.params
    work = Compute(CloudApi(connect(module), params["api_timeout"]), params["name"], module.check_mode)
    try:
        if params["state"] == "drained":
            if params["must_exist"] or work.service() is not None:
                work.drain(params["reason"], params["timeout"])
        elif params["state"] == "evacuated":
            work.evacuate(params["disks"] == "local", params["lose_disks"], params["timeout"])
        elif params["state"] == "removed":
            work.remove(params["timeout"])
        else:
            work.set_status(params["state"], params["reason"] if params["state"] == "disabled" else "")
            if params["state"] == "enabled":
                work.force_down(False)
            if params["state"] == "enabled" and not module.check_mode:
                work.wait_chosen()
    except Refused as error:
        module.fail_json(msg=str(error), servers=error.servers, changed=bool(work.actions), actions=work.actions)
    except CloudError as error:
        logs = f"\n{layer_logs([error.layer])}" if error.logs_matter else ""
        module.fail_json(msg=f"{error.layer}: {error}{logs}", layer=error.layer, actions=work.actions)
    result = {"moved": work.moved} if params["state"] in ("drained", "evacuated") else {}
    after = "".join(f"{action}\n" for action in work.actions)
    module.exit_json(
        changed=bool(work.actions),
        actions=work.actions,
        diff={"before": "", "after": after, "before_header": params["name"], "after_header": params["name"]},
        **result,
    )
