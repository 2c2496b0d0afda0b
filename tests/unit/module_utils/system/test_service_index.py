# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.kilonova.system import service_index
from ansible.module_utils.kilonova.system.service_index import ServiceIndex, read_index

PROJECT = Path(__file__).resolve().parents[4]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(service_index, "PATH", str(tmp_path / "services.json"))
    return tmp_path / "services.json"


def empty_layers(index: ServiceIndex) -> list[str]:
    """Return the layers without units, of which a failure message could show no logs."""
    return [layer for layer, units in index.layers.items() if not all(units) or not units]


def test_every_layer_has_units() -> None:
    index = read_index()
    assert index.layers and empty_layers(index) == []
    assert empty_layers(ServiceIndex({"a": ["b"], "c": [], "d": [""]})) == ["c", "d"]


def test_every_layer_that_is_blamed_is_in_the_index() -> None:
    sources = [*PROJECT.glob("module_utils/kilonova/**/*.py"), *PROJECT.glob("library/*.py")]
    blame = re.compile(r"""(?:Error|problem)\(\s*"([A-Za-z]+(?: [A-Za-z]+)*)",""")
    blamed = {layer for source in sources for layer in blame.findall(source.read_text())}
    assert len(blamed) > 5
    assert blamed - set(read_index().layers) == set()


def test_the_index_is_read_anew(path: Path) -> None:
    path.write_text(json.dumps({"layers": {"a": ["b"]}, "logs": {}}))
    assert read_index() == ServiceIndex({"a": ["b"]}, {})
    path.write_text(json.dumps({"layers": {}, "logs": {"b": ["c/*.log"]}}))
    assert read_index() == ServiceIndex({}, {"b": ["c/*.log"]})


def test_a_host_without_an_index(path: Path) -> None:
    assert read_index() == ServiceIndex(problem=f"{path} is missing on this host; run site.yml")


@pytest.mark.parametrize("content", ["{", "[]", "7", '{"layers": {}}', {"layers": ["a"], "logs": {}}, b"\xff"])
def test_an_index_that_cannot_be_used(path: Path, content: Any) -> None:
    path.write_bytes(content if isinstance(content, bytes) else str(content).encode())
    found = read_index()
    assert (found.layers, found.logs) == ({}, {})
    assert f"{path} on this host cannot be read" in found.problem
