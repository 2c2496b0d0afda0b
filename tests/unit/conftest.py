# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the unit tests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.kilonova.system import locks, service_index
from ansible.module_utils.testing import patch_module_args

# The service index of a deployed host.
SERVICES = Path(__file__).with_name("services.json")
PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Give each test the umask that the run began with; a module may set its own, since its process ends with it."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def deployed_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the tests the service index of a deployed host, not that of this computer."""
    monkeypatch.setattr(service_index, "PATH", str(SERVICES))


@pytest.fixture
def layers() -> set[str]:
    """Return the names of all layers that a failure can be blamed on."""
    found = set(json.loads(SERVICES.read_text())["layers"])
    # Those of services that not every cloud has.
    for path in PROJECT.glob("roles/*/vars/main.yml"):
        for name, value in yaml.safe_load(path.read_text()).items():
            found |= set(value.get("layers", {})) if name.endswith("_service") else set()
    return found


@pytest.fixture(autouse=True)
def lock_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules' locks are in /run, where this user may not write and another run of the tests would be met."""
    monkeypatch.setattr(locks, "DIRECTORY", str(tmp_path_factory.mktemp("run")))


@pytest.fixture
def run_module(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Call with a module and its arguments: run its main() and return its result."""

    def run(module: Any, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            module.main()
        return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))

    return run


@pytest.fixture
def fake_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Call with a name and a shell script: put a program of that name at the front of PATH."""
    directory = tmp_path / "fake-programs"

    def make(name: str, script: str) -> Path:
        directory.mkdir(exist_ok=True)
        program = directory / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return program

    monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)
    return make
