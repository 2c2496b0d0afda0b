# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What differs between a cluster and what is wanted, and what nobody but an operator may change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ceph_pools
import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.kilonova.storage import cluster, pools
from ansible.module_utils.kilonova.storage.pools import State, make_plan

IMAGES = {"name": "images", "size": 3, "min_size": 2}
GLANCE = {"name": "client.glance", "key": "secret", "caps": {"mon": "profile rbd"}}
WANTED = {
    "options": {"mon": {"auth_allow_insecure_global_id_reclaim": False}},
    "min_compat_client": "nautilus",
    "rule": {"name": "replicated-host", "failure_domain": "host"},
    "pools": [IMAGES, {"name": ".mgr", "size": 3, "min_size": 2, "application": "mgr", "create": False}],
    "entities": [GLANCE],
}
POOL = {"crush_rule": 1, "size": 3, "min_size": 2, "pg_autoscale_mode": "on", "application_metadata": {"rbd": {}}}


def params(**changes: Any) -> dict[str, Any]:
    result = ArgumentSpecValidator(pools.ARGUMENT_SPEC).validate({**WANTED, **changes})
    assert result.error_messages == []
    return dict(result.validated_parameters)


def state(**pool: Any) -> State:
    return State(
        {("mon", "auth_allow_insecure_global_id_reclaim"): "false"},
        {"replicated_rule": 0, "replicated-host": 1, "as-good": 2},
        {0: "osd", 1: "host", 2: "host"},
        {"images": {**POOL, **pool}},
        {"client.glance": {"entity": "client.glance", "key": "secret", "caps": {"mon": "profile rbd"}}},
        "nautilus",
    )


def test_nothing_to_do() -> None:
    plan = make_plan(state(), params())
    assert plan.changes == [] and plan.needs_you == []


def test_another_rule_may_be_as_good() -> None:
    assert make_plan(state(crush_rule=2), params()).changes == []


def test_the_domain_of_a_rule() -> None:
    steps = [
        {"op": "take", "item_name": "default"},
        {"op": "chooseleaf_firstn", "num": 0, "type": "host"},
        {"op": "emit"},
    ]
    assert pools.domain_of({"steps": steps}) == "host"


def test_an_empty_cluster_gets_everything_in_order() -> None:
    plan = make_plan(State(), params())
    assert [change.line for change in plan.changes] == [
        "mon: auth_allow_insecure_global_id_reclaim = false",
        "clients of nautilus or newer",
        "crush rule replicated-host",
        "pool images",
        "pool images: size 3",
        "pool images: min_size 2",
        "pool images: application rbd",
        "client.glance",
    ]
    (create,) = [change.command for change in plan.changes if change.line == "pool images"]
    assert create["rule"] == "replicated-host" and create["autoscale_mode"] == "on"


@pytest.mark.parametrize(
    ("changed", "line", "value"),
    [
        ({"size": 2}, "pool images: size 3", "3"),
        ({"min_size": 1}, "pool images: min_size 2", "2"),
        ({"crush_rule": 0}, "pool images: crush_rule replicated-host", "replicated-host"),
        ({"pg_autoscale_mode": "warn"}, "pool images: pg_autoscale_mode on", "on"),
    ],
)
def test_a_pool_that_was_changed(changed: dict[str, Any], line: str, value: str) -> None:
    (change,) = make_plan(state(**changed), params()).changes
    assert change.line == line
    assert change.command["val"] == value
    shown = pools.diff_of([change])
    assert shown["after"] == f"{line.rpartition(' ')[0]}: {value}\n" and shown["before"] != shown["after"]


def test_a_pool_without_its_application() -> None:
    (change,) = make_plan(state(application_metadata={}), params()).changes
    assert change.command == {"prefix": "osd pool application enable", "pool": "images", "app": "rbd"}


def test_no_pool_gets_fewer_copies() -> None:
    plan = make_plan(state(), params(pools=[{"name": "images", "size": 2, "min_size": 1}]))
    assert plan.changes == []
    assert "keeps 3 copies of each object, and 2 are wanted" in plan.needs_you[0]


def test_one_copy_has_to_be_meant() -> None:
    plan = make_plan(State(), params(pools=[{"name": "images", "size": 1, "min_size": 1}]))
    (change,) = [change for change in plan.changes if change.line == "pool images: size 1"]
    assert change.command["yes_i_really_mean_it"] is True


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (None, "client.glance"),
        ({"key": "other", "caps": {"mon": "profile rbd"}}, "client.glance (key)"),
        ({"key": "secret", "caps": {"mon": "allow *"}}, "client.glance (caps)"),
    ],
)
def test_an_entity_that_was_changed(found: dict[str, Any] | None, line: str) -> None:
    live = state()
    live.entities = {"client.glance": found} if found else {}
    (change,) = make_plan(live, params()).changes
    assert change.line == line
    assert change.data == b'[client.glance]\n\tkey = secret\n\tcaps mon = "profile rbd"\n'
    # No key in what is shown.
    shown = json.dumps([pools.diff_of([change]), change.line, change.command])
    assert "secret" not in shown and 'other"' not in shown


def test_newer_clients_than_needed_stay_required() -> None:
    live = state()
    live.min_compat_client = "reef"
    assert make_plan(live, params()).changes == []


def test_a_dry_run_before_ceph_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_module: Callable[..., dict[str, Any]]
) -> None:
    monkeypatch.setattr(cluster, "CONFIGURATION", str(tmp_path / "ceph.conf"))
    found = run_module(ceph_pools, check=True, **WANTED)
    assert "Ceph: pool images" in found["changes"]
