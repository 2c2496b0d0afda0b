# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The module cloud_resources: what it returns, and dry runs before and after the first deployment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloud_resources
import pytest
from ansible.module_utils.kilonova.cloud import cloud_resources as logic
from ansible.module_utils.kilonova.system import dry_run

FLAVORS = [{"name": name, "id": name, "vcpus": 1, "ram": 512, "disk": 1} for name in ("tiny", "small", "large")]


@pytest.fixture
def flavors() -> list[dict[str, Any]]:
    """Flavors as Nova has them."""
    return [one | {"swap": ""} for one in FLAVORS]


@pytest.fixture
def run(
    flavors: list[dict[str, Any]],
    run_module: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[..., dict[str, Any]]:
    clouds_file = tmp_path / "clouds.yaml"
    clouds_file.touch()
    api = SimpleNamespace(listing=lambda service, path, key, **_: flavors if key == "flavors" else [])
    monkeypatch.setattr(logic, "connect", lambda module: SimpleNamespace(current_project_id="p"))
    monkeypatch.setattr(logic, "CloudApi", lambda connection, patience: api)
    return lambda **options: run_module(
        cloud_resources, **{"clouds_file": str(clouds_file), "flavors": FLAVORS} | options
    )


def test_nothing_to_do(run: Callable[..., dict[str, Any]]) -> None:
    result = run()
    assert (result["changed"], result["actions"], result["servers"], result["needs_you"]) == (False, [], [], [])
    assert result["ids"]["flavor"] == {"tiny": "tiny", "small": "small", "large": "large"}


def test_check_mode_predicts_around_what_needs_you(
    flavors: list[dict[str, Any]], run: Callable[..., dict[str, Any]]
) -> None:
    flavors[0]["ram"] = flavors[1]["disk"] = 2
    del flavors[2]
    result = run(check=True)
    assert (result["changed"], result["actions"]) == (True, ["flavor large: created"])
    tiny, small = result["needs_you"]
    assert "ram is 2, wanted 512" in tiny and "disk is 2, wanted 1" in small


def test_a_run_fails_with_all_that_needs_you(flavors: list[dict[str, Any]], run: Callable[..., dict[str, Any]]) -> None:
    flavors[0]["ram"] = flavors[1]["disk"] = 2
    result = run()
    assert result["failed"] and not result["changed"]
    assert "\n- The flavor 'tiny' differs (ram is 2, wanted 512)" in result["msg"]
    assert "\n- The flavor 'small' differs (disk is 2, wanted 1)" in result["msg"]
    flavors[1]["disk"] = 1
    assert run()["msg"].startswith("The flavor 'tiny' differs (ram is 2, wanted 512)")


@pytest.mark.parametrize("deployed", [False, True])
def test_missing_clouds_file(
    run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, deployed: bool
) -> None:
    monkeypatch.setattr(dry_run, "MARIADB_TABLES", str(tmp_path if deployed else tmp_path / "none"))
    path = str(tmp_path / "absent.yaml")
    result = run(clouds_file=path, check=True)
    if deployed:
        assert (result["changed"], result["actions"]) == (False, [])
        assert path in result["not_looked_at"]
    else:
        assert (result["changed"], result["actions"][0]) == (True, "flavor tiny: created")
        assert "not_looked_at" not in result
