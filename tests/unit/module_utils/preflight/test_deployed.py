# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Messages about variables that cannot change on a deployed cloud."""

from __future__ import annotations

from pathlib import Path

import yaml
from ansible.module_utils.kilonova.preflight import deployed, roles

from tests.unit.module_utils.preflight.sample import host

PROJECT = Path(__file__).resolve().parents[4]
RECORD = {"variables": {"fixed_range": "192.168.1.0/24", "cloud_region": "RegionOne"}}


def test_changed_range() -> None:
    wanted = {"fixed_range": "10.9.0.0/24", "cloud_region": "RegionOne"}
    (found,) = deployed.check_recorded(host(deployed=True, record=RECORD), wanted)
    assert found.startswith(
        "fixed_range = '10.9.0.0/24': the cloud was deployed with 192.168.1.0/24, and Neutron cannot change the range "
        "of a subnet. Write 192.168.1.0/24; to have another one, add a network"
    )
    assert "/var/lib/kilonova/deployed.json" in found


def test_unchanged_or_unrecorded() -> None:
    same = {"fixed_range": "192.168.1.0/24", "cloud_region": "RegionOne", "keystone_admin_user": "root"}
    assert deployed.check_recorded(host(record=RECORD), same) == []
    assert deployed.check_recorded(host(), {"fixed_range": "10.9.0.0/24"}) == []
    assert deployed.check_recorded(host(record={"variables": None}), {"fixed_range": "10.9.0.0/24"}) == []


def test_what_is_recorded_is_what_is_compared() -> None:
    recorded = roles.load_yaml(PROJECT / "roles/preflight/vars/main.yml")["preflight_recorded_variables"]
    assert sorted(recorded) == sorted(deployed.FIXED)
    assert set(recorded) <= set(roles.read_roles(PROJECT / "roles").options)


def test_the_record_has_variables_and_secrets() -> None:
    record = yaml.safe_load((PROJECT / "roles/preflight/vars/main.yml").read_text())["preflight_record"]
    assert sorted(record) == ["secrets", "variables"]
