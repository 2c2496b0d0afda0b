# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What Nova and Neutron know of a controller that is gone is deleted, and nothing of other hosts."""

from __future__ import annotations

import json
from typing import Any

import controller_services as library
import pytest
from ansible.module_utils.kilonova.cloud import controller_services
from ansible.module_utils.testing import patch_module_args


class Api:
    """Two hosts in Nova and Neutron."""

    def __init__(self) -> None:
        self.found = {
            "/os-services": [
                {"id": f"{host}-{name}", "host": host, "binary": f"nova-{name}"}
                for host in ("ctl2", "ctl3")
                for name in ("scheduler", "conductor", "compute")
            ],
            "/agents": [{"id": f"{host}-ovn", "host": host, "agent_type": "OVN agent"} for host in ("ctl2", "ctl3")],
        }
        self.deleted: list[str] = []

    def listing(self, service: str, path: str, key: str, host: str) -> list[dict[str, Any]]:
        assert (service, key) == {"/os-services": ("compute", "services"), "/agents": ("network", "agents")}[path]
        return [one for one in self.found[path] if one["host"] == host]

    def delete(self, service: str, path: str) -> None:
        self.deleted.append(f"{service}{path}")


@pytest.mark.parametrize("check_mode", [False, True])
def test_services_and_agents_of_the_host_are_deleted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], check_mode: bool
) -> None:
    api = Api()
    monkeypatch.setattr(controller_services, "connect", lambda module: None)
    monkeypatch.setattr(controller_services, "CloudApi", lambda connection, timeout: api)
    with patch_module_args({"name": "ctl3", "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
        library.main()
    found = json.loads(capsys.readouterr().out)
    assert found["actions"] == [
        "ctl3: nova-scheduler removed from Nova",
        "ctl3: nova-conductor removed from Nova",
        "ctl3: OVN agent removed from Neutron",
    ]
    deleted = ["compute/os-services/ctl3-scheduler", "compute/os-services/ctl3-conductor", "network/agents/ctl3-ovn"]
    assert api.deleted == ([] if check_mode else deleted)
