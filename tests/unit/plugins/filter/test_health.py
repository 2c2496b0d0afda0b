# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Lines about broken units."""

from __future__ import annotations

from typing import Any

from plugins.filter.health import health_lines, holder_lines, maintenance_lines, unit_lines, units_found

BROKEN = {
    "unit": "nova-api.service",
    "title": "Nova",
    "reason": "is masked",
    "command": "systemctl unmask nova-api.service",
}


def test_what_mends_each_unit_comes_before_the_logs() -> None:
    results: dict[str, dict[str, Any]] = {
        "ctl1": {"broken": [BROKEN | {"log": "--- journal\none"}, BROKEN | {"unit": "b.service", "log": "two"}]},
        "cmp1": {"broken": []},
        "cmp2": {"unreachable": True, "msg": "no route to host"},
        "cmp3": {"skipped": True, "changed": False},
    }
    assert unit_lines(results) == [
        "- cmp2: no route to host",
        "- ctl1: nova-api.service (Nova) is masked: systemctl unmask nova-api.service",
        "- ctl1: b.service (Nova) is masked: systemctl unmask nova-api.service",
        "=== ctl1",
        "--- journal",
        "one",
        "=== ctl1",
        "two",
    ]


def test_hosts_that_were_not_looked_at_are_left_out() -> None:
    hostvars: dict[str, dict[str, Any]] = {"ctl1": {"verify_units": {"broken": []}}, "cmp1": {}}
    assert units_found(hostvars, ["ctl1", "cmp1"]) == {"ctl1": {"broken": []}}


def test_apis_that_do_not_answer_are_not_called_healthy() -> None:
    assert health_lines({"msg": "Keystone did not answer.\nlog", "failed": False}) == [
        "The APIs do not answer",
        "  Keystone did not answer.",
        "  log",
    ]


def test_an_address_is_held_by_one_host() -> None:
    results: dict[str, dict[str, Any]] = {"a": {"held": ["192.0.2.10"]}, "b": {"held": []}, "c": {"unreachable": True}}
    assert holder_lines(results, ["192.0.2.10"]) == []
    (none,) = holder_lines(results, ["192.168.1.1"])
    assert none.startswith("- 192.168.1.1: held by no controller")
    results["b"] = {"held": ["192.0.2.10"]}
    (two,) = holder_lines(results, ["192.0.2.10"])
    assert two.startswith("- 192.0.2.10: held by a, b")


def test_a_host_in_maintenance_is_named_with_what_ends_it() -> None:
    facts = {"present": ["/etc/kilonova/maintenance"]}
    hostvars: dict[str, dict[str, Any]] = {"a": {"preflight_facts": facts}, "b": {"preflight_facts": {}}, "c": {}}
    (line,) = maintenance_lines(hostvars, hostvars, "/etc/kilonova/maintenance")
    assert line.startswith("- a is in maintenance") and line.endswith("--limit a -e maintenance=end")
