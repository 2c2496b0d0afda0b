# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A compute in a small Nova in memory: what is asked for, waited for, predicted and refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.kilonova.cloud.api import CloudError
from ansible.module_utils.kilonova.cloud.compute_host import Compute, Refused

HOST = "OS-EXT-SRV-ATTR:host"
TASK = "OS-EXT-STS:task_state"
NO_HOST = "No valid host was found. There are not enough hosts available."
PRE_CHECK = "Migration pre-check error: Unacceptable CPU info: CPU doesn't have compatibility."
# The order of Nova: the event that began last comes first. The traceback is all frames and no exception.
EVENTS = [
    {
        "event": "compute_check_can_live_migrate_destination",
        "finish_time": "2025-01-01T00:00:01.000000",
        "result": "Error",
        "traceback": '  File "manager.py", line 9213, in check\n    raise exception.MigrationPreCheckError(reason)\n',
        "details": PRE_CHECK,
    },
    {
        "event": "conductor_live_migrate_instance",
        "finish_time": "2025-01-01T00:00:02.000000",
        "result": "Error",
        "traceback": '  File "manager.py", line 505, in _live_migrate\n    task.execute()\n',
        "details": NO_HOST,
    },
]
UNFINISHED = {
    "event": "compute_live_migration",
    "finish_time": None,
    "result": None,
    "traceback": None,
    "details": None,
}
SUCCESS = UNFINISHED | {"finish_time": "2025-01-01T00:00:03.000000", "result": "Success"}


class Cloud:
    """Nova 2025.1 and Neutron in memory. A pause advances the time, and each guest by one step of its course."""

    def __init__(self) -> None:
        self.services: dict[str, dict[str, Any]] = {
            f"service-{name}": {
                "id": f"service-{name}",
                "binary": "nova-compute",
                "host": name,
                "status": "enabled",
                "state": "up",
                "disabled_reason": None,
            }
            for name in ("cmp1", "cmp2")
        }
        self.agents = {
            f"{kind}-{name}": {"id": f"{kind}-{name}", "agent_type": f"OVN {kind} agent", "host": name}
            for name in ("cmp1", "cmp2")
            for kind in ("Controller", "Metadata")
        }
        self.servers: dict[str, dict[str, Any]] = {}
        # What becomes of a guest, pause after pause. None: it is deleted.
        self.course: dict[str, list[dict[str, Any] | None]] = {}
        self.service_course: list[dict[str, Any]] = []
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.actions: dict[str, list[str]] = {}
        self.copying: dict[str, int] = {}
        self.refusals: dict[str, CloudError] = {}
        self.confirming: set[str] = set()
        self.writes: list[tuple[str, Any]] = []
        # How often Placement is asked until nova-compute has removed the trait of a disabled compute.
        self.kept_back = 0
        # How often Nova refuses to count a compute again that has not removed evacuated guests.
        self.uncleaned = 0
        self.time = 0.0

    def guest(self, name: str, status: str = "ACTIVE", host: str = "cmp2", **fields: Any) -> dict[str, Any]:
        self.servers[name] = {"id": name, "name": f"the {name}", "status": status, HOST: host, TASK: None} | fields
        self.actions[name] = []
        return self.servers[name]

    def clock(self) -> float:
        return self.time

    def pause(self, seconds: float) -> None:
        assert seconds > 0
        self.time += seconds
        if self.service_course:
            self.services["service-cmp2"] |= self.service_course.pop(0)
        for name, steps in self.course.items():
            if not steps:
                continue
            step = steps.pop(0)
            if step is None:
                self.servers.pop(name, None)
            else:
                self.servers[name] |= step

    def listing(self, service: str, path: str, key: str, **params: Any) -> list[dict[str, Any]]:
        kinds: dict[str, dict[str, dict[str, Any]]] = {
            "compute/os-services": self.services,
            "compute/servers/detail": self.servers,
            "network/agents": self.agents,
        }
        assert key == path.split("/")[1].removeprefix("os-")
        filters = {"host": HOST} if key == "servers" else {"host": "host", "binary": "binary"}
        assert (params.pop("all_tenants", None) == "1") == (key == "servers")
        found = kinds[service + path].values()
        return [dict(one) for one in found if all(one[filters[name]] == value for name, value in params.items())]

    def get(self, service: str, path: str, **params: Any) -> dict[str, Any]:
        if service == "placement" and path == "/resource_providers":
            return {"resource_providers": [{"uuid": f"provider-{params['name']}"}]}
        if service == "placement":
            assert path == "/resource_providers/provider-cmp2/traits"
            self.kept_back -= 1
            return {"traits": ["HW_CPU_X86_AVX", *(["COMPUTE_STATUS_DISABLED"] if self.kept_back >= 0 else [])]}
        return self._read(path, "2.79")

    def put(self, service: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.uncleaned > 0:
            self.uncleaned -= 1
            raise CloudError("Nova API", f"PUT {path} got 400: Unable to force up host cmp2 as `done` evacuation", 400)
        self.writes.append((f"PUT {path}", body))
        assert body.get("status") == "disabled" or "disabled_reason" not in body, "Nova refuses a reason to enable"
        status = {"disabled_reason": None} if "status" in body else {}
        self.services[path.removeprefix("/os-services/")] |= status | body
        return {}

    def delete(self, service: str, path: str) -> None:
        self.writes.append((f"DELETE {path}", None))
        kind, identity = path.strip("/").split("/")
        if kind == "os-services" and any(one[HOST] == self.services[identity]["host"] for one in self.servers.values()):
            raise CloudError("Nova API", f"DELETE {path} got 409: it is hosting instances", 409)
        del (self.services if kind == "os-services" else self.agents)[identity]

    def request(self, service: str, method: str, path: str, **arguments: Any) -> Any:
        if method == "GET":
            version = arguments.get("headers", {}).get("OpenStack-API-Version", "compute 2.79")
            answer = self._read(path, version.removeprefix("compute "))
            return SimpleNamespace(json=lambda: answer)
        name = path.split("/")[2]
        body = arguments["json"]
        (action,) = body
        self.writes.append((f"{method} {path}", body))
        if name in self.refusals:
            raise self.refusals[name]
        if name not in self.servers:
            raise CloudError("Nova API", f"{method} {path} got 404: gone", 404)
        server = self.servers[name]
        if action == "os-migrateLive":
            assert server["status"] in ("ACTIVE", "PAUSED")
            self.actions[name].insert(0, "live-migration")
            self.course.setdefault(name, [{}, {"status": server["status"], TASK: None, HOST: "cmp1"}])
            server |= {"status": "MIGRATING", TASK: "migrating"}
        elif action == "evacuate":
            assert self.services["service-cmp2"]["state"] == "down" and server[TASK] is None
            self.actions[name].insert(0, "evacuate")
            self.course.setdefault(name, [{}, {"status": "ACTIVE", TASK: None, HOST: "cmp1"}])
            server |= {"status": "REBUILD", TASK: "rebuilding"}
        elif action == "migrate":
            assert server["status"] == "SHUTOFF"
            self.actions[name].insert(0, "migrate")
            self.course.setdefault(name, [{HOST: "cmp1"}, {"status": "VERIFY_RESIZE", TASK: None}])
            server |= {"status": "RESIZE", TASK: "resize_prep"}
        else:
            # The guest stays in VERIFY_RESIZE without a task until the old compute has cleaned up.
            assert action == "confirmResize"
            if name in self.confirming or server["status"] != "VERIFY_RESIZE":
                raise CloudError("Nova API", f"{method} {path} got 400: Instance has not been resized.", 400)
            self.confirming.add(name)
            self.actions[name].insert(0, "confirmResize")
            self.course[name] = [{}, {}, {"status": "SHUTOFF"}]
        return SimpleNamespace()

    def _read(self, path: str, version: str) -> dict[str, Any]:
        _, kind, name, *rest = path.split("/")
        if kind != "servers" or name not in self.servers:
            raise CloudError("Nova API", f"GET {path} got 404: gone", 404)
        if not rest:
            return {"server": dict(self.servers[name])}
        if rest == ["migrations"]:
            # The live migrations in progress. The old compute cleans up after the guest has its new host.
            self.copying[name] = self.copying.get(name, 0) - 1
            return {"migrations": [{"status": "running"}] if self.copying[name] >= 0 else []}
        made = [{"action": action, "request_id": f"req-{action}"} for action in self.actions[name]]
        if len(rest) == 1:
            return {"instanceActions": made}
        (action,) = (one for one in made if one["request_id"] == rest[1])
        known = self.events[name] if action == made[0] else [SUCCESS]
        if version != "2.84":
            known = [{key: value for key, value in one.items() if key != "details"} for one in known]
        return {"instanceAction": action | {"events": known}}


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


def compute(cloud: Cloud, name: str = "cmp2", check_mode: bool = False) -> Compute:
    return Compute(cloud, name, check_mode, clock=cloud.clock, pause=cloud.pause)  # type: ignore[arg-type]


def drained(cloud: Cloud, timeout: float = 600, check_mode: bool = False) -> Compute:
    work = compute(cloud, check_mode=check_mode)
    work.drain("new memory", timeout)
    return work


def not_moved(cloud: Cloud) -> tuple[Compute, list[tuple[str, str]]]:
    """Drain and fail. Returns the compute, and the guests that did not move with their reasons."""
    work = compute(cloud)
    with pytest.raises(Refused, match="cmp2 is disabled, and . guests moved, but these did not:") as failure:
        work.drain("new memory", 600)
    for one in failure.value.servers:
        assert f"\n- {one['name']} ({one['id']}, {one['status']}): {one['why']}" in str(failure.value)
    assert cloud.services["service-cmp2"]["status"] == "disabled"
    return work, [(one["id"], one["why"]) for one in failure.value.servers]


def posts(cloud: Cloud) -> list[tuple[str, Any]]:
    return [(path.split("/")[2], body) for path, body in cloud.writes if path.startswith("POST")]


def test_disabled_and_enabled_again(cloud: Cloud) -> None:
    work = compute(cloud)
    work.set_status("disabled", "new memory")
    assert work.actions == ["cmp2: disabled (new memory)"]
    work = compute(cloud)
    work.set_status("enabled")
    assert work.actions == ["cmp2: enabled"]
    assert cloud.writes == [
        ("PUT /os-services/service-cmp2", {"status": "disabled", "disabled_reason": "new memory"}),
        ("PUT /os-services/service-cmp2", {"status": "enabled"}),
    ]
    assert cloud.services["service-cmp2"]["disabled_reason"] is None
    assert cloud.services["service-cmp1"]["status"] == "enabled"


def test_an_enabled_compute_is_waited_for_until_the_scheduler_can_choose_it(cloud: Cloud) -> None:
    cloud.kept_back = 3
    compute(cloud).wait_chosen()
    assert cloud.time == 6.0


def test_a_compute_that_the_scheduler_never_chooses(cloud: Cloud) -> None:
    cloud.kept_back = 1000
    with pytest.raises(CloudError, match="cmp2 is enabled, and Placement still has the trait COMPUTE_STATUS_DISABLED"):
        compute(cloud).wait_chosen()


def test_a_compute_that_is_down_is_not_waited_for(cloud: Cloud) -> None:
    cloud.kept_back = 1000
    cloud.services["service-cmp2"]["state"] = "down"
    compute(cloud).wait_chosen()
    assert cloud.time == 0.0


@pytest.mark.parametrize(("status", "reason"), [("enabled", ""), ("disabled", "new memory"), ("disabled", "")])
def test_no_request_without_a_difference(cloud: Cloud, status: str, reason: str) -> None:
    cloud.services["service-cmp2"] |= {"status": status, "disabled_reason": "new memory" if reason else None}
    work = compute(cloud)
    work.set_status(status, reason)
    assert work.actions == []
    assert cloud.writes == []


def test_another_reason_is_a_change(cloud: Cloud) -> None:
    cloud.services["service-cmp2"] |= {"status": "disabled", "disabled_reason": "new memory"}
    work = compute(cloud)
    work.set_status("disabled", "new disk")
    assert work.actions == ["cmp2: disabled (new disk)"]
    assert cloud.services["service-cmp2"]["disabled_reason"] == "new disk"


def test_check_mode_changes_no_status(cloud: Cloud) -> None:
    work = compute(cloud, check_mode=True)
    work.set_status("disabled", "new memory")
    assert work.actions == ["cmp2: disabled (new memory)"]
    assert cloud.writes == []


def test_unknown_compute_names_the_known_ones(cloud: Cloud) -> None:
    work = compute(cloud, "cmp9")
    with pytest.raises(CloudError, match="Nova knows no compute 'cmp9'. It knows: cmp1, cmp2.") as failure:
        work.set_status("disabled", "x")
    assert failure.value.status == 404 and not failure.value.logs_matter
    with pytest.raises(CloudError, match="It knows: cmp1, cmp2"):
        work.drain("x", 1)
    cloud.services.clear()
    with pytest.raises(CloudError, match="It knows: none"):
        work.set_status("enabled")
    assert work.actions == [] and cloud.writes == []


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"status": "ACTIVE", TASK: "image_snapshot"}, r"Nova is busy with it \(image_snapshot\); wait until"),
        ({"status": "MIGRATING", TASK: "migrating"}, r"Nova is busy with it \(migrating\)"),
        ({"status": "BUILD", TASK: "spawning"}, r"Nova is busy with it \(spawning\)"),
        ({"status": "VERIFY_RESIZE"}, "a resize waits for its owner's confirmation"),
        ({"status": "ERROR"}, "moves only guests that are active, paused or shut off; start, stop or delete it"),
        ({"status": "SUSPENDED"}, "moves only guests that are active, paused or shut off"),
        ({"status": "RESCUE"}, "moves only guests that are active, paused or shut off"),
        ({"status": "SHELVED"}, "moves only guests that are active, paused or shut off"),
    ],
)
def test_guest_that_cannot_be_moved_stops_the_drain_before_it_begins(
    cloud: Cloud, fields: dict[str, Any], why: str, check_mode: bool
) -> None:
    cloud.guest("a")
    cloud.guest("b", **fields)
    cloud.guest("elsewhere", "ERROR", "cmp1")
    work = compute(cloud, check_mode=check_mode)
    with pytest.raises(Refused, match=rf"nothing was changed:\n- the b \(b, {fields['status']}\): .*{why}") as failure:
        work.drain("x", 1)
    assert [(one["id"], one["name"], one["status"]) for one in failure.value.servers] == [
        ("b", "the b", fields["status"])
    ]
    assert work.actions == [] and cloud.writes == []


@pytest.mark.parametrize("fields", [{"status": "disabled"}, {"state": "down"}])
def test_drain_needs_another_compute(cloud: Cloud, fields: dict[str, str]) -> None:
    cloud.guest("a")
    cloud.guest("b", "SHUTOFF")
    cloud.services["service-cmp1"] |= fields
    work = compute(cloud)
    with pytest.raises(Refused, match="nothing was changed") as failure:
        work.drain("x", 1)
    assert [(one["id"], one["why"]) for one in failure.value.servers] == [
        ("a", "no other compute is enabled and up"),
        ("b", "no other compute is enabled and up"),
    ]
    assert work.actions == [] and cloud.writes == []


def test_drain_of_the_only_compute_without_guests(cloud: Cloud) -> None:
    del cloud.services["service-cmp1"]
    assert drained(cloud).actions == ["cmp2: disabled (new memory)"]


def test_guests_move_away(cloud: Cloud) -> None:
    cloud.guest("a")
    cloud.guest("p", "PAUSED")
    cloud.guest("s", "SHUTOFF")
    cloud.guest("elsewhere", host="cmp1")
    work = drained(cloud)
    assert cloud.writes[0] == (
        "PUT /os-services/service-cmp2",
        {"status": "disabled", "disabled_reason": "new memory"},
    )
    live = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
    assert posts(cloud) == [("a", live), ("p", live), ("s", {"migrate": None}), ("s", {"confirmResize": None})]
    assert work.moved == [
        {"id": "a", "name": "the a", "how": "live", "to": "cmp1", "seconds": 4},
        {"id": "p", "name": "the p", "how": "live", "to": "cmp1", "seconds": 4},
        {"id": "s", "name": "the s", "how": "cold", "to": "cmp1", "seconds": 10},
    ]
    assert work.actions == [
        "cmp2: disabled (new memory)",
        "the a: moved live to cmp1 in 4 s",
        "the p: moved live to cmp1 in 4 s",
        "the s: moved cold to cmp1 in 10 s",
    ]
    assert [one["status"] for one in cloud.servers.values()] == ["ACTIVE", "PAUSED", "SHUTOFF", "ACTIVE"]
    cloud.writes.clear()
    again = drained(cloud)
    assert again.actions == [] and again.moved == []
    assert cloud.writes == []


def test_resize_is_confirmed_once(cloud: Cloud) -> None:
    """Nova refuses a second confirmation, and the guest's state does not change until the first one is done."""
    cloud.guest("s", "SHUTOFF")
    drained(cloud)
    assert posts(cloud).count(("s", {"confirmResize": None})) == 1


def test_live_migration_ends_when_the_old_compute_has_cleaned_up(cloud: Cloud) -> None:
    """Nova does not delete a compute with migrations in progress, and a compute that is stopped does not end them."""
    cloud.guest("a")
    cloud.copying["a"] = 3
    assert drained(cloud).moved[0]["seconds"] == 10


@pytest.mark.parametrize("status", ["SOFT_DELETED", "SHELVED_OFFLOADED", "DELETED"])
def test_guests_that_need_no_compute_do_not_count(cloud: Cloud, status: str) -> None:
    cloud.guest("a", status)
    del cloud.services["service-cmp1"]
    assert drained(cloud).actions == ["cmp2: disabled (new memory)"]
    assert posts(cloud) == []


def test_check_mode_predicts_the_drain(cloud: Cloud) -> None:
    cloud.guest("a")
    cloud.guest("s", "SHUTOFF")
    work = drained(cloud, check_mode=True)
    assert work.actions == ["cmp2: disabled (new memory)", "the a: moved away", "the s: moved away"]
    assert work.moved == [] and cloud.writes == [] and cloud.time == 0


def test_guest_that_stays_gives_the_reason_that_nova_recorded(cloud: Cloud) -> None:
    """That of the innermost event: the conductor knows only that no compute was left."""
    cloud.guest("a")
    cloud.guest("b")
    cloud.course["b"] = [{"status": "ACTIVE", TASK: None}]
    cloud.events["b"] = EVENTS
    work, failed = not_moved(cloud)
    assert failed == [("b", PRE_CHECK)]
    assert [one["id"] for one in work.moved] == ["a"]
    assert work.actions == ["cmp2: disabled (new memory)", "the a: moved live to cmp1 in 4 s"]


def test_cold_migration_that_fails(cloud: Cloud) -> None:
    cloud.guest("s", "SHUTOFF")
    cloud.actions["s"] = ["create"]
    cloud.course["s"] = [{"status": "SHUTOFF", TASK: None}]
    why = "Resize error: not able to execute ssh command:\nExit code: 255\nStderr: 'Host key verification failed'"
    cloud.events["s"] = [SUCCESS, EVENTS[1] | {"event": "compute_resize_instance", "details": why}]
    assert not_moved(cloud)[1] == [
        ("s", "Resize error: not able to execute ssh command: Exit code: 255 Stderr: 'Host key verification failed'")
    ]


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([SUCCESS], "Nova did not move it and does not say why"),
        ([], "Nova did not move it and does not say why"),
        ([EVENTS[1] | {"details": None}], "conductor_live_migrate_instance failed"),
    ],
)
def test_guest_that_stays_without_a_reason(cloud: Cloud, events: list[dict[str, Any]], why: str) -> None:
    cloud.guest("a")
    cloud.course["a"] = [{"status": "ACTIVE", TASK: None}]
    cloud.events["a"] = events
    assert not_moved(cloud)[1] == [("a", why)]


def test_events_are_waited_for(cloud: Cloud) -> None:
    """A guest's task ends a moment before Nova records its result."""
    cloud.guest("a")
    cloud.course["a"] = [{"status": "ACTIVE", TASK: None}]
    cloud.events["a"] = [UNFINISHED]
    work = compute(cloud)

    def pause(seconds: float) -> None:
        cloud.pause(seconds)
        if cloud.time > 10:
            cloud.events["a"] = EVENTS

    work.pause = pause
    with pytest.raises(Refused, match="Unacceptable CPU info"):
        work.drain("x", 600)
    assert cloud.time == 12


@pytest.mark.parametrize(("status", "host"), [("ACTIVE", "cmp1"), ("SHUTOFF", "cmp1"), ("ACTIVE", "cmp2")])
def test_guest_in_error_has_not_moved_wherever_it_is(cloud: Cloud, status: str, host: str) -> None:
    cloud.guest("a", status)
    cloud.course["a"] = [{"status": "ERROR", TASK: None, HOST: host, "fault": {"code": 500, "message": "No domain"}}]
    work, failed = not_moved(cloud)
    assert failed == [("a", f"it went to ERROR on {host}: No domain")]
    assert work.moved == []


@pytest.mark.parametrize("end", [None, {"status": "SOFT_DELETED", TASK: None}])
def test_guest_that_is_deleted_on_its_way(cloud: Cloud, end: dict[str, Any] | None) -> None:
    cloud.guest("a")
    cloud.guest("s", "SHUTOFF")
    cloud.course["a"] = [{"status": "ACTIVE", TASK: "deleting"}, end]
    work = drained(cloud)
    assert work.actions == ["cmp2: disabled (new memory)", "the s: moved cold to cmp1 in 10 s"]
    assert [one["id"] for one in work.moved] == ["s"]


def test_guest_that_is_deleted_before_its_turn(cloud: Cloud) -> None:
    for name in ("a", "b"):
        cloud.guest(name)
    cloud.refusals["a"] = CloudError("Nova API", "POST got 404: Instance a could not be found.", 404)
    assert [one["id"] for one in drained(cloud).moved] == ["b"]


def test_a_refused_guest_does_not_stop_the_others(cloud: Cloud) -> None:
    for name in ("a", "b"):
        cloud.guest(name)
    refusal = "POST /servers/a/action got 409: Cannot 'os-migrateLive' instance a while it is in task_state rebooting"
    cloud.refusals["a"] = CloudError("Nova API", refusal, 409)
    work, failed = not_moved(cloud)
    assert failed == [("a", refusal)]
    assert [one["id"] for one in work.moved] == ["b"]


def test_failure_of_nova_is_raised(cloud: Cloud) -> None:
    cloud.guest("a")
    cloud.refusals["a"] = CloudError("Nova API", "POST /servers/a/action got 500: broken", 500)
    with pytest.raises(CloudError, match="500: broken"):
        drained(cloud)


def test_time_is_up(cloud: Cloud) -> None:
    cloud.guest("a")
    cloud.guest("b")
    cloud.course["b"] = []
    work = compute(cloud)
    with pytest.raises(Refused, match="1 guests moved, but these did not") as failure:
        work.drain("x", 60)
    assert [(one["id"], one["why"]) for one in failure.value.servers] == [("b", "still moving after 60 s")]
    assert 60 < cloud.time <= 64


def test_removal_refuses_while_guests_are_there(cloud: Cloud) -> None:
    cloud.services["service-cmp2"]["state"] = "down"
    cloud.guest("a", "ERROR")
    for check_mode in (True, False):
        work = compute(cloud, check_mode=check_mode)
        with pytest.raises(Refused, match="cmp2 has guests and is not removed:\n- the a") as failure:
            work.remove(1)
        assert failure.value.servers[0]["why"] == "it would lose its compute; drain or evacuate it first"
        assert work.actions == []
    assert cloud.writes == []


def test_removal_waits_until_the_compute_is_down(cloud: Cloud) -> None:
    cloud.service_course = [{}, {}, {"state": "down"}]
    predicted = compute(cloud, check_mode=True)
    predicted.remove(600)
    assert cloud.writes == [] and cloud.time == 0
    work = compute(cloud)
    work.remove(600)
    assert work.actions == predicted.actions
    assert work.actions == [
        "cmp2: removed from Nova",
        "cmp2: OVN Controller agent removed from Neutron",
        "cmp2: OVN Metadata agent removed from Neutron",
    ]
    assert cloud.time == 6
    assert [path for path, _ in cloud.writes] == [
        "DELETE /os-services/service-cmp2",
        "DELETE /agents/Controller-cmp2",
        "DELETE /agents/Metadata-cmp2",
    ]
    assert list(cloud.services) == ["service-cmp1"]
    cloud.writes.clear()
    again = compute(cloud)
    again.remove(600)
    assert again.actions == [] and cloud.writes == []


def test_removal_goes_on_where_it_was_interrupted(cloud: Cloud) -> None:
    del cloud.services["service-cmp2"], cloud.agents["Controller-cmp2"]
    work = compute(cloud)
    work.remove(600)
    assert work.actions == ["cmp2: OVN Metadata agent removed from Neutron"]


def test_compute_that_stays_up_is_not_removed(cloud: Cloud) -> None:
    work = compute(cloud)
    with pytest.raises(CloudError, match=r"nova-compute on cmp2 still reports.*systemctl disable --now nova-compute"):
        work.remove(60)
    assert 60 < cloud.time <= 64
    assert work.actions == [] and cloud.writes == []


def test_failed_actions_are_not_reported_as_done(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> dict[str, Any]:
        raise CloudError("Nova API", "got 409: in-progress migrations", 409)

    cloud.services["service-cmp2"]["state"] = "down"
    monkeypatch.setattr(cloud, "put", refuse)
    monkeypatch.setattr(cloud, "delete", refuse)
    work = compute(cloud)
    with pytest.raises(CloudError, match="409"):
        work.set_status("disabled", "x")
    with pytest.raises(CloudError, match="409"):
        work.remove(1)
    del cloud.services["service-cmp2"]
    with pytest.raises(CloudError, match="409"):
        work.remove(1)
    assert work.actions == []


def evacuated(cloud: Cloud, local: bool = False, lose_disks: bool = False, check_mode: bool = False) -> Compute:
    work = compute(cloud, check_mode=check_mode)
    work.evacuate(local, lose_disks, 600)
    return work


FORCED = ("PUT /os-services/service-cmp2", {"forced_down": True})


def test_guests_of_a_dead_compute_start_elsewhere(cloud: Cloud) -> None:
    """Not before Nova misses the reports of the compute."""
    cloud.guest("a", image={"id": "i"})
    cloud.guest("e", "ERROR", image="")
    cloud.guest("elsewhere", host="cmp1")
    cloud.service_course = [{}, {}, {"state": "down"}]
    work = evacuated(cloud)
    assert cloud.writes == [
        FORCED,
        ("POST /servers/a/action", {"evacuate": {}}),
        ("POST /servers/e/action", {"evacuate": {}}),
    ]
    assert work.actions == [
        "cmp2: forced down",
        "the a: moved by evacuation to cmp1 in 4 s",
        "the e: moved by evacuation to cmp1 in 4 s",
    ]
    cloud.writes.clear()
    assert evacuated(cloud).actions == [] and cloud.writes == []


def test_a_compute_that_reports_is_not_evacuated(cloud: Cloud) -> None:
    cloud.guest("a")
    with pytest.raises(CloudError, match="nova-compute on cmp2 still reports to Nova"):
        evacuated(cloud)
    assert cloud.writes == [] and cloud.time > 100


def test_disks_that_died_with_the_compute(cloud: Cloud) -> None:
    cloud.services["service-cmp2"]["state"] = "down"
    cloud.guest("a", image={"id": "i"})
    cloud.guest("v", image="")
    with pytest.raises(Refused, match="cmp2 is not evacuated, and nothing was changed") as failure:
        evacuated(cloud, local=True)
    assert [(one["id"], one["why"][:43]) for one in failure.value.servers] == [
        ("a", "its disk is a file of this compute and woul")
    ]
    assert cloud.writes == []
    assert len(evacuated(cloud, local=True, lose_disks=True).moved) == 2


@pytest.mark.parametrize("status", ["PAUSED", "SUSPENDED", "RESCUE"])
def test_guests_that_nova_does_not_evacuate(cloud: Cloud, status: str) -> None:
    cloud.services["service-cmp2"]["state"] = "down"
    cloud.guest("a", status)
    with pytest.raises(Refused, match="Nova evacuates only guests that are active, shut off or in ERROR"):
        evacuated(cloud)
    assert cloud.writes == []


def test_an_evacuation_needs_another_compute(cloud: Cloud) -> None:
    cloud.services["service-cmp2"]["state"] = cloud.services["service-cmp1"]["state"] = "down"
    cloud.guest("a")
    with pytest.raises(Refused, match="no other compute is enabled and up"):
        evacuated(cloud)


def test_an_evacuation_that_was_interrupted_goes_on(cloud: Cloud) -> None:
    cloud.services["service-cmp2"] |= {"state": "down", "forced_down": True}
    cloud.guest("a", "REBUILD", **{TASK: "rebuilding"})
    cloud.course["a"] = [{"status": "ACTIVE", TASK: None, HOST: "cmp1"}]
    assert evacuated(cloud).actions == ["the a: moved by evacuation to cmp1 in 2 s"]
    assert cloud.writes == []


def test_a_guest_that_was_not_evacuated(cloud: Cloud) -> None:
    cloud.services["service-cmp2"]["state"] = "down"
    cloud.guest("a")
    cloud.course["a"] = [{"status": "ERROR", TASK: None, "fault": {"message": NO_HOST}}]
    with pytest.raises(
        Refused, match="cmp2 is forced down, and 0 guests were evacuated, but these were not"
    ) as failure:
        evacuated(cloud)
    assert failure.value.servers[0]["why"] == f"it went to ERROR on cmp2: {NO_HOST}"


def test_predicted_evacuation(cloud: Cloud) -> None:
    cloud.guest("a")
    assert evacuated(cloud, check_mode=True).actions == ["cmp2: forced down", "the a: evacuated"]
    assert cloud.writes == []


def test_a_compute_that_came_back_counts_again(cloud: Cloud) -> None:
    cloud.services["service-cmp2"] |= {"state": "down", "forced_down": True}
    cloud.service_course = [{}, {"state": "up"}]
    work = compute(cloud)
    work.force_down(False)
    work.force_down(False)
    assert work.actions == ["cmp2: no longer forced down"] and cloud.time == 4.0
    assert cloud.writes == [("PUT /os-services/service-cmp2", {"forced_down": False})]


def test_a_compute_that_has_not_cleaned_up_is_waited_for(cloud: Cloud) -> None:
    cloud.services["service-cmp2"] |= {"state": "down", "forced_down": True}
    cloud.uncleaned = 3
    cloud.service_course = [{}, {"state": "up"}]
    work = compute(cloud)
    work.force_down(False)
    assert work.actions == ["cmp2: no longer forced down"] and cloud.time == 6.0
    cloud.services["service-cmp2"]["forced_down"], cloud.uncleaned = True, 1000
    with pytest.raises(CloudError, match="Unable to force up host cmp2"):
        compute(cloud).force_down(False)


def test_a_compute_that_does_not_come_back(cloud: Cloud) -> None:
    cloud.services["service-cmp2"] |= {"state": "down", "forced_down": True}
    with pytest.raises(CloudError, match="nova-compute on cmp2 does not report to Nova"):
        compute(cloud).force_down(False)
