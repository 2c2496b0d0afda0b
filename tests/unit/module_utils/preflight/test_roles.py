# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What the roles declare."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.kilonova.preflight import names, roles

PROJECT = Path(__file__).resolve().parents[4]


def test_the_roles_of_this_project_are_read() -> None:
    known = roles.read_roles(PROJECT / "roles")
    assert {"bridge_", "preflight_", "cloud_", "flat_", "fixed_"} <= set(known.prefixes)
    assert known.options["bridge_rollback_seconds"]["type"] == "int"
    assert {"bridge_service", "preflight_ports", "fixed_range"} <= known.names
    assert names.check_names(["bridge_rollback_second"], known) == [
        "bridge_rollback_second: no role knows a variable of this name, so setting it does nothing. Did you mean "
        "bridge_rollback_seconds? Rename it if it is your own."
    ]
