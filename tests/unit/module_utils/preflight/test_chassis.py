# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A host cannot have another's name in OVN."""

from __future__ import annotations

import pytest
from ansible.module_utils.kilonova.preflight import chassis
from ansible.plugins.filter.core import to_uuid


@pytest.mark.parametrize("name", ["", "ac40994b-10eb-4134-bee9-e5fd2738d71c", to_uuid("cmp1")])
def test_a_host_keeps_its_own_name(name: str) -> None:
    assert chassis.check_system_id({"ovs_system_id": name}, "cmp1", ["ctl1", "cmp1", "cmp2"]) == []


def test_the_name_of_another_host_is_refused() -> None:
    facts = {"ovs_system_id": to_uuid("cmp2")}
    (found,) = chassis.check_system_id(facts, "cmp1", ["ctl1", "cmp1", "cmp2"])
    assert "this is the name in OVN of cmp2, and a certificate of this name gives its rights" in found
    assert found.endswith(f"Write {to_uuid('cmp1')}.")
