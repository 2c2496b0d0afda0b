# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Planning cell mappings, finding hosts to map, and nova_cells' check mode."""

from __future__ import annotations

import functools
import json
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud import nova_cells
from ansible.module_utils.kilonova.cloud.cells import (
    CELL0_TRANSPORT,
    CELL0_UUID,
    AmbiguousCell,
    Cell,
    Host,
    before_map_cell0,
    diff_of,
    missing_message,
    plan_cells,
    unmapped,
    waiting_for,
)
from ansible.module_utils.kilonova.cloud.nova_cells import NovaManage, wanted_cells
from ansible.module_utils.kilonova.config.urls import database_url, transport_url
from ansible.module_utils.kilonova.database.service_tool import ServiceTool, ToolError
from ansible.module_utils.testing import patch_module_args

UGLY = "@:/%$#'\"\\ "
ZERO = Cell("cell0", database_url("nova", UGLY, "db", "nova_cell0"), CELL0_TRANSPORT, CELL0_UUID)
ONE = Cell("cell1", database_url("nova", UGLY, "db", "nova"), transport_url("openstack", UGLY, "mq"))
ONE_MAPPED = replace(ONE, uuid="u1")


def test_a_converged_mapping_needs_nothing() -> None:
    assert plan_cells([ZERO, ONE_MAPPED], [ZERO, ONE]) == []


def test_missing_cells_are_mapped() -> None:
    changes = plan_cells([], [ZERO, ONE])
    assert [change.text for change in changes] == ["map cell0", "map cell1"]


def test_other_urls_are_corrected_and_their_passwords_hidden() -> None:
    old = replace(ONE_MAPPED, transport_url=transport_url("openstack", "old", "mq"))
    changes = plan_cells([ZERO, old], [ZERO, ONE])
    assert [change.text for change in changes] == ["correct the transport URL of cell1"]
    assert changes[0].after.uuid == "u1"
    diff = diff_of(changes, ["c1"])
    assert diff["before"] == {
        "cell1": {"transport URL": "rabbit://openstack:***@mq:5672/ (old password)"},
        "mapped hosts": [],
    }
    assert diff["after"]["mapped hosts"] == ["c1"]
    assert "%40" not in repr((diff, changes))


def test_a_renamed_cell_is_recognised_by_its_database() -> None:
    changes = plan_cells([ZERO, replace(ONE_MAPPED, name="")], [ZERO, ONE])
    assert [(change.text, change.after.uuid) for change in changes] == [("correct the name of cell1", "u1")]


def test_ambiguous_cells_are_an_error() -> None:
    with pytest.raises(AmbiguousCell, match="2 cells are called cell1: u1, u2"):
        plan_cells([ONE_MAPPED, replace(ONE_MAPPED, uuid="u2")], [ONE])


@pytest.mark.parametrize("password", [UGLY, "plain", "%41", "a b+c"])
def test_map_cell0_makes_the_wanted_url(password: str) -> None:
    wanted = database_url("nova", password, "db", "nova_cell0")
    # nova/cmd/manage.py appends to the database's name and unquotes the whole URL.
    assert unquote(before_map_cell0(wanted) + "_cell0") == wanted


def test_hosts_are_waited_for_until_they_have_a_compute_node() -> None:
    hosts = {"c1": Host("c1", "cell1", has_node=True), "c2": Host("c2", "cell1", has_service=True, last_report=7)}
    assert waiting_for(["c0", "c1", "c2", "c3"], {"c0"}, hosts) == ["c2", "c3"]
    assert unmapped({"c0"}, hosts) == ["c1"]
    message = missing_message(["c2", "c3"], hosts, {"c0"}, 60)
    assert "2 expected compute host(s) did not register within 60 s" in message
    assert "c2: nova-compute registered in cell1 (last report 7 s ago), but has no compute node" in message
    assert "c3: nova-compute never registered" in message
    assert "Registered compute hosts: c0, c1." in message


def test_wrong_parameters_are_explained() -> None:
    params = {"api_connection": ONE.connection, "cell0_connection": ZERO.connection, "cells": []}
    assert wanted_cells(params) == [ZERO]
    entry = {"name": "cell0", "connection": ONE.connection, "transport_url": ONE.transport_url}
    with pytest.raises(ValueError, match="listed more than once: cell0"):
        wanted_cells({**params, "cells": [entry]})
    with pytest.raises(ValueError, match="the connection of the API database cannot be used: the scheme"):
        wanted_cells({**params, "api_connection": "sqlite://"})


def test_a_cell_that_a_killed_run_made_meanwhile_is_not_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nova_cells, "ServiceTool", functools.partial(ServiceTool, run_directory=str(tmp_path / "run")))
    manage = NovaManage(ONE.connection)
    assert manage(ONE, "create_cell", "--name", "cell1", unless=lambda: ONE_MAPPED) == ""
    # Nova is not installed here, so that starting nova-manage fails.
    with pytest.raises(ToolError):
        manage(ONE, "create_cell", "--name", "cell1", unless=lambda: None)


def look(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mapped: set[str],
    hosts: list[Host],
    existing: list[Cell],
) -> dict[str, Any]:
    """Run the check mode, expecting c1 and c2, on databases with this content."""
    monkeypatch.setattr(nova_cells, "connect_to_read", lambda url: BytesIO())
    monkeypatch.setattr(nova_cells, "read_cells", lambda api: existing)
    monkeypatch.setattr(nova_cells, "read_mapped_hosts", lambda api: mapped)
    monkeypatch.setattr(nova_cells, "read_hosts", lambda cell, link: {host.name: host for host in hosts})
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits"))
    arguments = {
        "api_connection": ONE.connection,
        "cell0_connection": ZERO.connection,
        "cells": [{"name": "cell1", "connection": ONE.connection, "transport_url": ONE.transport_url}],
        "expected_hosts": ["c1", "c2"],
        "timeout": 0,
        "_ansible_check_mode": True,
    }
    with patch_module_args(arguments), pytest.raises(SystemExit):
        nova_cells.run(AnsibleModule(argument_spec=nova_cells.ARGUMENT_SPEC, supports_check_mode=True))
    return dict(json.loads(capsys.readouterr().out))


def test_a_dry_run_says_which_hosts_are_unmapped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registered = Host("c1", "cell1", has_node=True)
    result = look(monkeypatch, capsys, {"c0"}, [registered], [ZERO, ONE_MAPPED])
    assert (result["changed"], result["hosts"], result["unmapped"]) == (True, ["c1", "c2"], ["c1", "c2"])
    assert (result["mapped"], result["missing"]) == (["c0", "c1"], ["c2"])
    result = look(monkeypatch, capsys, {"c1", "c2"}, [registered], [ZERO, ONE_MAPPED])
    assert (result["changed"], result["hosts"], result["unmapped"]) == (False, [], [])
    assert "needs_you" not in result


def test_a_dry_run_reports_an_ambiguous_cell_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = [ONE_MAPPED, replace(ONE_MAPPED, uuid="u2")]
    result = look(monkeypatch, capsys, {"c1", "c2"}, [], twice)
    assert result["mappings"] == ["map cell0"]
    assert ["2 cells are called cell1" in text for text in result["needs_you"]] == [True]
