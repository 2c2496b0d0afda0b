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
from urllib.parse import quote, unquote, urlsplit

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud import nova_cells
from ansible.module_utils.kilonova.cloud.cells import (
    CELL0_TRANSPORT,
    CELL0_UUID,
    AmbiguousCell,
    Cell,
    Host,
    diff_of,
    mapping_of,
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
SERVER = "{scheme}://{username}:{password}@{hostname}:{port}"
ZERO_MAPPED = replace(ZERO, connection=f"{SERVER}/nova_cell0")
ONE_MAPPED = Cell("cell1", f"{SERVER}/nova", f"{SERVER}/", "u1")


def test_a_converged_mapping_needs_nothing() -> None:
    assert plan_cells([ZERO_MAPPED, ONE_MAPPED], [ZERO, ONE], ONE) == []


def test_missing_cells_are_mapped() -> None:
    changes = plan_cells([], [ZERO, ONE], ONE)
    assert [change.text for change in changes] == ["map cell0", "map cell1"]


def test_urls_with_passwords_are_replaced_by_templates_and_hidden() -> None:
    old = replace(ONE_MAPPED, connection=ONE.connection, transport_url=transport_url("openstack", "old", "mq"))
    changes = plan_cells([ZERO_MAPPED, old], [ZERO, ONE], ONE)
    assert [change.text for change in changes] == ["correct the database connection and transport URL of cell1"]
    assert changes[0].after == ONE_MAPPED
    diff = diff_of(changes, ["c1"])
    assert diff["before"] == {
        "cell1": {
            "database connection": "mysql+pymysql://nova:***@db:3306/nova",
            "transport URL": "rabbit://openstack:***@mq:5672/",
        },
        "mapped hosts": [],
    }
    assert diff["after"]["mapped hosts"] == ["c1"]
    assert "%40" not in repr((diff, changes))


def test_a_template_becomes_the_url_again() -> None:
    """Nova formats it with the parts of the URL in its configuration (CellMapping._format_url)."""
    brokers = transport_url("openstack", UGLY, ["mq1", "mq2"], "nova")
    query = database_url("nova", UGLY, "db", "nova", charset="utf8")
    cell = Cell("cell1", query, brokers)
    mapping = mapping_of(cell, cell)
    assert UGLY not in unquote(mapping.connection + mapping.transport_url)
    parts = urlsplit(query)
    named = {name: getattr(parts, name) for name in ("scheme", "username", "password", "hostname", "port")}
    assert mapping.connection.format(**named) == query
    login = {"username": "openstack", "password": quote(UGLY, safe=""), "port": "5672"}
    numbered = {f"{name}{n}": value for n in (1, 2) for name, value in {**login, "hostname": f"mq{n}"}.items()}
    assert mapping.transport_url.format(scheme="rabbit", **numbered) == brokers


def test_a_cell_on_another_server_keeps_its_url() -> None:
    other = Cell("cell2", database_url("nova", UGLY, "db2", "nova_cell2"), transport_url("openstack", UGLY, "mq2"))
    assert mapping_of(other, ONE) == other
    assert mapping_of(ZERO, ONE) == ZERO_MAPPED


def test_a_renamed_cell_is_recognised_by_its_database() -> None:
    changes = plan_cells([ZERO_MAPPED, replace(ONE_MAPPED, name="")], [ZERO, ONE], ONE)
    assert [(change.text, change.after.uuid) for change in changes] == [("correct the name of cell1", "u1")]


def test_ambiguous_cells_are_an_error() -> None:
    with pytest.raises(AmbiguousCell, match="2 cells are called cell1: u1, u2"):
        plan_cells([ONE_MAPPED, replace(ONE_MAPPED, uuid="u2")], [ONE], ONE)


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
    result = look(monkeypatch, capsys, {"c0"}, [registered], [ZERO_MAPPED, ONE_MAPPED])
    assert (result["changed"], result["hosts"], result["unmapped"]) == (True, ["c1", "c2"], ["c1", "c2"])
    assert (result["mapped"], result["missing"]) == (["c0", "c1"], ["c2"])
    result = look(monkeypatch, capsys, {"c1", "c2"}, [registered], [ZERO_MAPPED, ONE_MAPPED])
    assert (result["changed"], result["hosts"], result["unmapped"]) == (False, [], [])
    assert "needs_you" not in result


def test_a_dry_run_reports_an_ambiguous_cell_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = [ONE_MAPPED, replace(ONE_MAPPED, uuid="u2")]
    result = look(monkeypatch, capsys, {"c1", "c2"}, [], twice)
    assert result["mappings"] == ["map cell0"]
    assert ["2 cells are called cell1" in text for text in result["needs_you"]] == [True]
