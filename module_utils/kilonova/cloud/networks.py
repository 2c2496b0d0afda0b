# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Converge networks, their subnets, and security group rules."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.kilonova.cloud import plan
from ansible.module_utils.kilonova.cloud.converge import PREDICTED, Convergence


def converge_networks(work: Convergence, wanted: list[dict[str, Any]]) -> None:
    for one in wanted:
        work.keep("network", one["name"], PREDICTED)
        with work.resolving():
            found = work.api.listing("network", "/networks", "networks", name=one["name"], project_id=work.project_id)
            current = plan.the_one("network", one["name"], found)
            if current is None:
                current = _create_network(work, one)
            else:
                with work.resolving():
                    _update_network(work, one, current)
            work.keep("network", one["name"], current["id"])
            _converge_subnets(work, current["id"], one["subnets"] or [])


def _create_network(work: Convergence, one: dict[str, Any]) -> dict[str, Any]:
    fields = plan.network_fields(one) | plan.network_provider(one)
    body = {key: value for key, value in fields.items() if value is not None}
    work.record("network", one["name"], "created", None, body)
    if work.check_mode:
        return {"id": PREDICTED}
    answer = work.api.post("network", "/networks", {"network": body | {"name": one["name"]}})
    return dict(answer["network"])


def _update_network(work: Convergence, one: dict[str, Any], current: dict[str, Any]) -> None:
    changes = plan.network_difference(current, one)
    if changes:
        work.record("network", one["name"], "changed", changes.before, changes.after)
        if not work.check_mode:
            work.api.put("network", f"/networks/{current['id']}", {"network": changes.after})


def _converge_subnets(work: Convergence, network_id: str, wanted: list[dict[str, Any]]) -> None:
    existing: list[dict[str, Any]] = []
    if wanted and network_id != PREDICTED:
        existing = work.api.listing("network", "/subnets", "subnets", network_id=network_id)
    for one in wanted:
        with work.resolving():
            current = plan.find_subnet(existing, one)
            if current is None:
                _create_subnet(work, network_id, one)
            else:
                _update_subnet(work, one, current)


def _create_subnet(work: Convergence, network_id: str, one: dict[str, Any]) -> None:
    body = plan.subnet_fields(one) | {"cidr": one["cidr"], "ip_version": 4}
    work.record("subnet", one["name"], "created", None, body)
    work.keep("subnet", one["name"], PREDICTED)
    if not work.check_mode:
        subnet = work.api.post("network", "/subnets", {"subnet": body | {"network_id": network_id}})["subnet"]
        work.keep("subnet", one["name"], subnet["id"])


def _update_subnet(work: Convergence, one: dict[str, Any], current: dict[str, Any]) -> None:
    work.keep("subnet", one["name"], current["id"])
    changes = plan.subnet_difference(current, one)
    if changes:
        work.record("subnet", one["name"], "changed", changes.before, changes.after)
        if not work.check_mode:
            work.api.put("network", f"/subnets/{current['id']}", {"subnet": changes.after})


def converge_rules(work: Convergence, wanted: list[dict[str, Any]]) -> None:
    if not wanted:
        return
    groups = work.api.listing("network", "/security-groups", "security_groups", project_id=work.project_id)
    for name in dict.fromkeys(one["group"] for one in wanted):
        with work.resolving():
            current = plan.the_one("security group", name, [group for group in groups if group["name"] == name])
            if current is None:
                current = _create_group(work, name)
            work.keep("security group", name, current["id"])
            for one in [rule for rule in wanted if rule["group"] == name]:
                if not plan.rule_exists(current["security_group_rules"], one):
                    _create_rule(work, current["id"], one)


def _create_group(work: Convergence, name: str) -> dict[str, Any]:
    work.record("security group", name, "created", None, {"name": name})
    if work.check_mode:
        return {"id": PREDICTED, "security_group_rules": []}
    answer = work.api.post("network", "/security-groups", {"security_group": {"name": name}})
    return dict(answer["security_group"])


def _create_rule(work: Convergence, group_id: str, one: dict[str, Any]) -> None:
    fields = plan.rule_fields(one)
    work.record("security group rule", f"{one['group']}: {plan.rule_text(one)}", "created", None, fields)
    if not work.check_mode:
        body = {"security_group_rule": fields | {"security_group_id": group_id}}
        work.api.post("network", "/security-group-rules", body)
