# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""service_check: files and units of all services in one call, further modules in check mode, reasons by service."""

from __future__ import annotations

import base64
import functools
import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import service_check as library
from ansible.module_utils.kilonova.cloud.token_cache import may_cache
from ansible.module_utils.kilonova.system import service_check
from ansible.module_utils.kilonova.system.service_check import CheckedModule, check_services, reason_of, run_check

Run = Callable[[Any], None]


def code(run: Run, **spec: Any) -> Any:
    """A module with one option."""
    return SimpleNamespace(ARGUMENT_SPEC={"name": {"type": "str", "required": True}, **spec}, run=run)


def say(module: Any, **result: Any) -> None:
    """A module that ends with a result."""
    module.exit_json(**result)


def service(name: str, **parts: Any) -> dict[str, Any]:
    return {"name": name, "files": [], "units": [], "checks": [], **parts}


class Host:
    """What config_files and systemd_units say of a host."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.units: dict[str, str] = {}
        self.calls: list[tuple[str, int]] = []
        self.broken = ""
        self.foreign: list[str] = []

    def config_files(self, module: Any) -> None:
        dests = [file["dest"] for file in module.params["files"]]
        self.calls.append(("files", len(dests)))
        if self.broken in dests:
            module.fail_json(msg=f"{self.broken}: the group does not exist\nmore")
        found = [dest for dest in dests if dest in self.files]
        module.exit_json(changed=bool(found), changed_files=found, written_files=found)

    def systemd_units(self, module: Any) -> None:
        names = [unit["name"] for unit in module.params["units"]]
        self.calls.append(("units", len(names)))
        verbs = {verb: [name for name in names if self.units.get(name) == verb] for verb in ("started", "enabled")}
        restarted = [{"name": name, "reason": "x"} for name in names if self.units.get(name) == "restarted"]
        changed = bool(restarted or any(verbs.values()))
        module.exit_json(changed=changed, restarted=restarted, foreign=self.foreign, **verbs)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host()
    anything = {"type": "list", "elements": "dict", "default": []}
    files = SimpleNamespace(ARGUMENT_SPEC={"files": anything}, run=made.config_files)
    units = SimpleNamespace(ARGUMENT_SPEC={"units": anything, "pending": {"type": "list"}}, run=made.systemd_units)
    monkeypatch.setattr(service_check, "config_files", files)
    monkeypatch.setattr(service_check, "systemd_units", units)
    return made


A = service("a", files=[{"dest": "/etc/a"}], units=[{"name": "a.service"}])
B = service("b", files=[{"dest": "/etc/b"}], units=[{"name": "b.service"}, {"name": "b.socket"}])


def test_services_that_are_as_described_are_left_out(host: Host) -> None:
    assert check_services(SimpleNamespace(check_mode=False), [A, B], {}) == {
        "changed_services": [],
        "reasons": {},
        "foreign": [],
        "verified": False,
    }
    assert host.calls == [("files", 2), ("units", 3)]


def test_foreign_drop_ins_make_no_service_a_changed_one(host: Host) -> None:
    host.foreign = ["a.service: drop-in /etc/systemd/system/a.service.d/site.conf"]
    found = check_services(SimpleNamespace(check_mode=False), [A, B], {})
    assert (found["changed_services"], found["foreign"]) == ([], host.foreign)


@pytest.mark.parametrize("verb", ["started", "enabled", "restarted"])
def test_what_differs_is_a_reason_of_its_service(host: Host, verb: str) -> None:
    host.files, host.units = {"/etc/b"}, {"b.socket": verb}
    found = check_services(SimpleNamespace(check_mode=False), [A, B], {})
    assert found["reasons"] == {"b": ["/etc/b", "b.socket"]}
    assert found["changed_services"] == ["b"]


def test_one_service_that_cannot_be_compared_does_not_hide_the_others(host: Host) -> None:
    host.broken, host.units = "/etc/a", {"b.service": "started"}
    assert check_services(SimpleNamespace(check_mode=False), [A, B], {})["reasons"] == {
        "a": ["config_files: /etc/a: the group does not exist"],
        "b": ["b.service"],
    }


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"changed": False}, ""),
        ({"changed": True}, "keystone_keys would change something"),
        ({"changed": False, "probed": True}, "keystone_keys would change something"),
        ({"changed": False, "needs_you": []}, ""),
        ({"changed": False, "needs_you": ["decide"]}, "keystone_keys: decide"),
        ({"changed": False, "not_looked_at": "MariaDB is down"}, "keystone_keys: MariaDB is down"),
        ({"failed": True, "msg": "refused"}, "keystone_keys: refused"),
    ],
)
def test_a_module_that_would_act_or_cannot_look_makes_its_service_a_changed_one(
    host: Host, monkeypatch: pytest.MonkeyPatch, result: dict[str, Any], reason: str
) -> None:
    assert reason_of("keystone_keys", result) == reason
    monkeypatch.setitem(service_check.CHECKS, "keystone_keys", code(lambda module: module.exit_json(**result)))
    if "failed" not in result:
        one = service("a", checks=[{"module": "keystone_keys", "args": {"name": "x"}}])
        assert check_services(SimpleNamespace(check_mode=False), [one], {})["reasons"] == (
            {"a": [reason]} if reason else {}
        )


def test_a_module_runs_in_check_mode_with_its_own_validated_parameters() -> None:
    seen: list[Any] = []

    def run(module: Any) -> None:
        seen.append((module.params, module.check_mode, module._diff, module.tmpdir))
        module.warn("not shown here")
        module.exit_json(changed=True)

    given = SimpleNamespace(tmpdir="/tmp/of-the-real-module", params={"other": 1}, check_mode=False)
    assert run_check(given, code(run, size={"type": "int", "default": 3}), {"name": "x"}) == {"changed": True}
    assert seen == [({"name": "x", "size": 3}, True, False, "/tmp/of-the-real-module")]


@pytest.mark.parametrize(
    ("run", "args", "message"),
    [
        (lambda module: module.exit_json(), {"nmae": "x"}, "nmae"),
        (lambda module: module.fail_json(msg="no"), {"name": "x"}, "no"),
        (lambda module: 1 // 0, {"name": "x"}, "ZeroDivisionError"),
        (lambda module: None, {"name": "x"}, "without a result"),
    ],
)
def test_a_module_that_fails_says_why(run: Run, args: dict[str, Any], message: str) -> None:
    result = run_check(SimpleNamespace(check_mode=False), code(run), args)
    assert result["failed"] and message in result["msg"]


def test_an_interrupt_is_not_a_result() -> None:
    def run(module: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_check(SimpleNamespace(check_mode=False), code(run), {"name": "x"})


def test_a_guest_counts_only_where_compute_verification_says_so(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for verified in (True, False):
        fake = code(functools.partial(say, verified=verified))
        monkeypatch.setattr(service_check, "compute_verification", fake)
        assert check_services(SimpleNamespace(check_mode=False), [], {"name": "x"})["verified"] is verified


@pytest.mark.parametrize("name", service_check.CHECKS)
def test_every_check_is_a_module(name: str) -> None:
    found: ModuleType = service_check.CHECKS[name]
    assert callable(found.run) and isinstance(found.ARGUMENT_SPEC, dict)
    assert Path(library.__file__).with_name(f"{name}.py").is_file()


def test_the_module_reads_what_its_action_plugin_encodes(host: Host, run_module: Callable[..., dict[str, Any]]) -> None:
    host.files = {"/etc/a"}
    encoded = base64.b64encode(json.dumps({"services": [A], "verification": {}}).encode()).decode()
    result = run_module(library, encoded=encoded)
    assert result["changed"] is False and result["changed_services"] == ["a"]


def test_a_stand_in_offers_what_the_real_module_has() -> None:
    real = SimpleNamespace(get_bin_path=lambda name: f"/bin/{name}", check_mode=False)
    assert CheckedModule(real, {}).get_bin_path("ip") == "/bin/ip"


@pytest.mark.parametrize("dry_run", [True, False])
def test_tokens_are_cached_except_in_a_dry_run(dry_run: bool) -> None:
    real = SimpleNamespace(check_mode=dry_run)
    assert may_cache(real) is may_cache(CheckedModule(real, {})) is not dry_run


def test_what_waits_for_a_program_is_begun_first_and_asked_last(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def slow(module: Any, begun: str) -> None:
        order.append(f"asked with {begun}")
        module.exit_json(changed=False, foreign=["RabbitMQ: user guest"])

    def quick(module: Any) -> None:
        order.append("quick")
        module.exit_json(changed=False)

    def begin() -> str:
        order.append("begun")
        return "handle"

    checks = {
        "slow": SimpleNamespace(ARGUMENT_SPEC={}, run=slow, begin=begin),
        "quick": SimpleNamespace(ARGUMENT_SPEC={}, run=quick),
    }
    monkeypatch.setattr(service_check, "CHECKS", checks)
    services = [A | {"checks": [{"module": "slow", "args": {}}]}, B | {"checks": [{"module": "quick", "args": {}}]}]
    result = check_services(SimpleNamespace(check_mode=False), services, {})
    assert order == ["begun", "quick", "asked with handle"]
    assert result["changed_services"] == [] and result["foreign"] == ["RabbitMQ: user guest"]


def test_what_waits_for_apis_runs_beside_the_others(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()

    def waits(module: Any) -> None:
        assert looked.wait(60)
        module.exit_json(changed=True, foreign=["Keystone: user guest"])

    def local(module: Any) -> None:
        looked.set()
        module.exit_json(changed=False, foreign=["sysctl"])

    checks = {
        "cloud_resources": SimpleNamespace(ARGUMENT_SPEC={}, run=waits),
        "local": SimpleNamespace(ARGUMENT_SPEC={}, run=local),
    }
    monkeypatch.setattr(service_check, "CHECKS", checks)
    services = [A | {"checks": [{"module": name, "args": {}} for name in checks]}]
    result = check_services(SimpleNamespace(check_mode=False), services, {})
    assert result["reasons"] == {"a": ["cloud_resources would change something"]}
    assert result["foreign"] == ["sysctl", "Keystone: user guest"]
