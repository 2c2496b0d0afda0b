#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: compute_host
short_description: Take a compute out of service, move its guests away, remove it, or let it serve again
version_added: "0.1.0"
description:
  - V(enabled) lets Nova choose the compute for guests again.
  - V(disabled) lets guests run where they are; new ones go elsewhere.
  - V(drained) disables it and moves its guests away. Running and paused guests move live, with their disks; those that
    are shut off move cold. The module refuses, before it moves anything, when a guest is in a state in which Nova can
    move it neither way, and lists those guests.
  - V(removed) deletes the compute service, with which Nova deletes the host's mapping to its cell and its resource
    provider in Placement, and the host's network agents. It refuses while the compute has guests or is up.
  - Uses Nova's REST API with microversion 2.79 (C(os-services), C(os-migrateLive), C(migrate), C(confirmResize),
    a server's C(migrations)) and 2.84 (C(os-instance-actions)), and Neutron's C(agents).
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [openstack_client]
options:
  name:
    description: The compute's name, as Nova knows it.
    type: str
    required: true
  state:
    description: What shall be.
    type: str
    default: enabled
    choices: [enabled, disabled, drained, removed]
  must_exist:
    description: Whether V(drained) fails for a compute that Nova does not know, rather than have nothing to do.
    type: bool
    default: true
  reason:
    description: Why it is out of service, shown by Nova to administrators. At most 255 characters.
    type: str
    default: maintenance
  timeout:
    description: Seconds to wait for all guests to move, or for the compute to go down before it is removed.
    type: int
    default: 1800
attributes:
  check_mode:
    support: full
    description: Predicts without changing anything, and refuses what would be refused.
  diff_mode:
    support: full
    description: Lists what changes.
"""

EXAMPLES = r"""
- name: Move the guests of cmp2 away
  compute_host:
    name: cmp2
    state: drained
    reason: new memory
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, one sentence each, in order.
  returned: always
  type: list
  elements: str
  sample: ["cmp2: disabled", "my_vm: moved live to cmp1 in 12 s"]
moved:
  description: Guests that moved; id, name, how (live or cold), to (the compute that it runs on now), and seconds.
  returned: with O(state=drained)
  type: list
  elements: dict
servers:
  description: Guests that cannot be moved, or did not move; id, name, status and why.
  returned: when the module refuses or fails because of guests
  type: list
  elements: dict
layer:
  description: The part of the cloud that failed.
  returned: when an API fails, or a compute that is to be removed stays up
  type: str
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.api import CloudApi, CloudError, layer_logs
from ansible.module_utils.kilonova.cloud.client import CLIENT_ARGUMENTS, connect

BINARY = "nova-compute"
# Before it, a failed event has a traceback, of frames without the exception, and no reason.
DETAILS_MICROVERSION = "2.84"
POLL_SECONDS = 2.0
LIVE = ("ACTIVE", "PAUSED")
COLD = ("SHUTOFF",)
GONE = ("DELETED", "SOFT_DELETED", "SHELVED_OFFLOADED")


class Refused(Exception):
    """Nothing was changed, or not all guests moved; ``servers`` are those that are the reason."""

    def __init__(self, message: str, servers: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.servers = servers


def brief(server: dict[str, Any], why: str) -> dict[str, Any]:
    return {"id": server["id"], "name": server["name"], "status": server["status"], "why": why}


def lines(servers: list[dict[str, Any]]) -> str:
    return "\n".join(f"- {one['name']} ({one['id']}, {one['status']}): {one['why']}" for one in servers)


def obstacle(server: dict[str, Any]) -> str:
    """Why a guest cannot be moved; empty when it can."""
    task = server.get("OS-EXT-STS:task_state")
    if task:
        return f"Nova is busy with it ({task}); wait until that is over"
    if server["status"] == "VERIFY_RESIZE":
        return "a resize waits for its owner's confirmation (openstack server resize confirm, or revert)"
    if server["status"] not in (*LIVE, *COLD):
        return "Nova moves only guests that are active, paused or shut off; start, stop or delete it"
    return ""


@dataclass
class Compute:
    api: CloudApi
    name: str
    check_mode: bool = False
    actions: list[str] = field(default_factory=list)
    moved: list[dict[str, Any]] = field(default_factory=list)
    confirmed: set[str] = field(default_factory=set)
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

    def drain(self, reason: str, timeout: float) -> None:
        self.existing()
        guests = self.guests()
        stuck = [brief(one, why) for one in guests if (why := obstacle(one))]
        if stuck:
            raise Refused(f"{self.name} cannot be drained, and nothing was changed:\n{lines(stuck)}", stuck)
        others = [
            one
            for one in self.services()
            if one["host"] != self.name and (one["status"], one["state"]) == ("enabled", "up")
        ]
        if guests and not others:
            stuck = [brief(one, "no other compute is enabled and up") for one in guests]
            raise Refused(f"{self.name} cannot be drained, and nothing was changed:\n{lines(stuck)}", stuck)
        self.set_status("disabled", reason)
        if self.check_mode:
            self.actions += [f"{one['name']}: moved away" for one in guests]
            return
        start = self.clock()
        waiting = {}
        failed = []
        for guest in guests:
            if guest["status"] in LIVE:
                body: dict[str, Any] = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
            else:
                body = {"migrate": None}
            refusal = self.ask(guest, body)
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
                failed += [brief(guest, f"still moving after {timeout:.0f} s") for guest in waiting.values()]
                break
            if waiting:
                self.pause(POLL_SECONDS)
        if failed:
            raise Refused(
                f"{self.name} is disabled, and {len(self.moved)} guests moved, but these did not:\n{lines(failed)}",
                failed,
            )

    def ask(self, guest: dict[str, Any], body: dict[str, Any]) -> str | None:
        """Ask Nova to act on a guest: None when it will, '' when the guest is gone, otherwise why it refuses."""
        try:
            self.api.request("compute", "POST", f"/servers/{guest['id']}/action", json=body)
        except CloudError as error:
            if error.logs_matter:
                raise
            return "" if error.status == 404 else str(error)
        return None

    def outcome(self, guest: dict[str, Any], start: float) -> str | None:
        """None while a guest moves, '' when it has moved or is gone, otherwise why it did not."""
        try:
            return self.progress(guest, start)
        except CloudError as error:
            if error.status == 404:
                return ""  # Its owner deleted it meanwhile.
            raise

    def progress(self, guest: dict[str, Any], start: float) -> str | None:
        path = f"/servers/{guest['id']}"
        now = self.api.get("compute", path)["server"]
        how = "live" if guest["status"] in LIVE else "cold"
        if now["status"] == "VERIFY_RESIZE" and not now.get("OS-EXT-STS:task_state"):
            # It looks like this until Nova has confirmed, which Nova must be asked for only once.
            if guest["id"] in self.confirmed:
                return None
            self.confirmed.add(guest["id"])
            return self.ask(guest, {"confirmResize": None})
        if now.get("OS-EXT-STS:task_state") or now["status"] in ("MIGRATING", "RESIZE", "VERIFY_RESIZE"):
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
            return None  # The old compute still cleans up; stopped now, it would never end the migration.
        seconds = round(self.clock() - start)
        self.moved.append({"id": guest["id"], "name": guest["name"], "how": how, "to": to, "seconds": seconds})
        self.actions.append(f"{guest['name']}: moved {how} to {to} in {seconds} s")
        return ""

    def failure(self, server_id: str) -> str | None:
        """Why the last move failed, as Nova recorded it; None when it has not begun yet."""
        found = self.api.get("compute", f"/servers/{server_id}/os-instance-actions")["instanceActions"]
        last = next((one for one in found if one["action"] in ("live-migration", "migrate")), None)
        if last is None:
            return None
        details = self.api.request(
            "compute",
            "GET",
            f"/servers/{server_id}/os-instance-actions/{last['request_id']}",
            headers={"OpenStack-API-Version": f"compute {DETAILS_MICROVERSION}"},
        ).json()
        events = details["instanceAction"].get("events") or []
        # The event that began last comes first; those that began before it only pass its failure on.
        errors = [one.get("details") or f"{one['event']} failed" for one in events if one["result"] == "Error"]
        if not errors and not all(one.get("finish_time") for one in events):
            return None
        return " ".join(errors[0].split()) if errors else "Nova left it where it was without saying why"

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
        for agent in self.api.listing("network", "/agents", "agents", host=self.name):
            if not self.check_mode:
                self.api.delete("network", f"/agents/{agent['id']}")
            self.actions.append(f"{self.name}: {agent['agent_type']} removed from Neutron")

    def wait_down(self, timeout: float) -> None:
        """A compute that still reports would come back by itself, without its mapping to the cell."""
        start = self.clock()
        while self.existing()["state"] == "up":
            if self.clock() - start > timeout:
                raise CloudError(
                    "Nova compute",
                    f"nova-compute on {self.name} still reports to Nova. Stop it before it is removed (systemctl "
                    "disable --now nova-compute).",
                )
            self.pause(POLL_SECONDS)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CLIENT_ARGUMENTS,
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "default": "enabled", "choices": ["enabled", "disabled", "drained", "removed"]},
            "must_exist": {"type": "bool", "default": True},
            "reason": {"type": "str", "default": "maintenance"},
            "timeout": {"type": "int", "default": 1800},
        },
        supports_check_mode=True,
    )
    params = module.params
    work = Compute(CloudApi(connect(module)), params["name"], module.check_mode)
    try:
        if params["state"] == "drained":
            if params["must_exist"] or work.service() is not None:
                work.drain(params["reason"], params["timeout"])
        elif params["state"] == "removed":
            work.remove(params["timeout"])
        else:
            work.set_status(params["state"], params["reason"] if params["state"] == "disabled" else "")
    except Refused as error:
        module.fail_json(msg=str(error), servers=error.servers, changed=bool(work.actions), actions=work.actions)
    except CloudError as error:
        logs = f"\n{layer_logs([error.layer])}" if error.logs_matter else ""
        module.fail_json(msg=f"{error.layer}: {error}{logs}", layer=error.layer, actions=work.actions)
    result = {"moved": work.moved} if params["state"] == "drained" else {}
    after = "".join(f"{action}\n" for action in work.actions)
    module.exit_json(
        changed=bool(work.actions),
        actions=work.actions,
        diff={"before": "", "after": after, "before_header": params["name"], "after_header": params["name"]},
        **result,
    )


if __name__ == "__main__":
    main()
