# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What a dry run said of a cloud that had drifted, and what the run after it did.

The scenario's molecule/default/drift.yml broke the things listed here and left what both runs recorded.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

RECORDS = Path(__file__).resolve().parents[2] / ".cache" / "molecule" / "drift"

SCENARIO = os.environ.get("MOLECULE_SCENARIO_NAME")

# In the scenario that lets its cloud drift, missing records are a failure.
pytestmark = pytest.mark.skipif(
    SCENARIO not in (None, "default") or (SCENARIO is None and not RECORDS.is_dir()), reason="nothing was made to drift"
)

# What was done by hand, and what has to be said of it.
DRIFT = [
    ("a line was added to nova.conf", "/etc/nova/nova.conf"),
    ("what nova-api read has changed", "restart nova-api.service"),
    ("what nova-compute read has changed", "restart nova-compute.service"),
    ("others may read glance-api.conf", "/etc/glance/glance-api.conf"),
    ("a file of uwsgi's was removed", "/etc/nova/nova-api-metadata-uwsgi.ini"),
    ("/etc/network/interfaces was edited", "bridge : Put the bridge over the interface"),
    ("a unit was stopped", "start nova-scheduler.service"),
    ("a unit was disabled", "enable memcached.service"),
    ("a package was removed", "install nova-doc"),
    ("a grant was revoked", "grant ALL PRIVILEGES on `glance`.* to 'glance'@'127.0.0.1'"),
    ("a database password was changed", "set the password of 'placement'@'127.0.0.1'"),
    ("a role was taken from a user", "create assignment of neutron to services as service"),
    ("a user's password was changed", "update user placement"),
    ("a service was renamed", "update service placement (placement)"),
    ("an endpoint was moved", "update endpoint image admin"),
    ("a flavor was deleted", "flavor m1.xlarge: created"),
    ("DHCP was switched off", "subnet nova-v4: changed"),
    ("the provider network was taken from OVN", "external-ids:ovn-bridge-mappings = physnet1:br-provider"),
]
# Their consequences: the other units that read nova.conf.
CONSEQUENCES = {f"restart nova-{name}.service" for name in ("api-metadata", "conductor", "novncproxy", "serialproxy")}


def record(name: str) -> list[dict[str, Any]]:
    return list(json.loads((RECORDS / f"{name}.json").read_text()))


def items(entries: list[dict[str, Any]]) -> set[str]:
    return {item for entry in entries for item in entry.get("items", [])}


@pytest.mark.parametrize(("done", "said"), DRIFT, ids=[done for done, said in DRIFT])
def test_a_dry_run_names_it_and_the_next_run_corrects_it(done: str, said: str) -> None:
    assert said in items(record("predicted"))
    assert said in items(record("changed"))


def test_a_dry_run_names_nothing_else() -> None:
    assert items(record("predicted")) == {said for done, said in DRIFT} | CONSEQUENCES
    assert [entry for entry in record("predicted") if "not_looked_at" in entry] == []


def test_the_run_did_what_was_predicted_task_by_task() -> None:
    assert record("changed") == record("predicted")


def test_nothing_differs_afterwards() -> None:
    assert record("left") == []
