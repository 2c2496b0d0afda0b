# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The module compute_verification: what counts as a change of a compute."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import compute_verification
import pytest
from ansible.module_utils.kilonova.cloud import compute_verification as logic

UNITS = ["nova-compute.service", "ovn-host.service"]
SHOWN = """\
Id=nova-compute.service
ActiveState=active
InvocationID=aaaa

Id=ovn-host.service
ActiveState=inactive
InvocationID=bbbb
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_program: Callable[[str, str], Path]) -> Path:
    """A host with a configuration file, packages, and a systemctl that prints what is in a file."""
    monkeypatch.setattr(logic, "DIRECTORY", str(tmp_path / "run"))
    monkeypatch.setattr(logic, "STAMP", str(tmp_path / "run" / "stamp"))
    monkeypatch.setattr(logic, "PACKAGES", str(tmp_path / "status"))
    for name, content in {"shown": SHOWN, "status": "Package: nova-compute", "nova.conf": "[DEFAULT]"}.items():
        (tmp_path / name).write_text(content)
    fake_program("systemctl", f"cat {tmp_path}/shown")
    return tmp_path


@pytest.fixture
def run(host: Path, run_module: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    given = {
        "units": UNITS,
        "files": [str(host / "nova.conf"), str(host / "other.conf")],
        "about": {"flavor": "1"},
    }
    return lambda check=False, **options: run_module(compute_verification, check=check, **(options or given))


def test_a_compute_is_verified_once_a_guest_ran(run: Callable[..., dict[str, Any]]) -> None:
    first = run()
    assert (first["verified"], first["since"], first["different"]) == (False, 0.0, [])
    run(check=True, seen=first["compute"])
    assert not run()["verified"]
    assert run(seen=first["compute"])["changed"] is False
    again = run()
    assert again["verified"] and again["since"] > 0 and again["compute"] == first["compute"]


@pytest.mark.parametrize(
    ("name", "content", "different"),
    [
        ("shown", SHOWN.replace("aaaa", "cccc"), ["unit nova-compute.service"]),
        ("shown", SHOWN.replace("=active", "=failed"), ["unit nova-compute.service"]),
        # An earlier start of an inactive unit does not count.
        ("shown", SHOWN.replace("bbbb", "cccc"), []),
        ("status", "Package: qemu-system-x86", ["packages"]),
        ("nova.conf", "[default]", ["file nova.conf"]),
        ("other.conf", "", ["file other.conf"]),
    ],
)
def test_changes_of_a_compute(
    host: Path, run: Callable[..., dict[str, Any]], name: str, content: str, different: list[str]
) -> None:
    run(seen=run()["compute"])
    (host / name).write_text(content)
    os.utime(host / name, ns=(1, 1))
    found = run()
    assert [text.replace(f"{host}/", "") for text in found["different"]] == different
    assert found["verified"] is (not different)


def test_what_is_in_a_directory_does_not_count(host: Path, run: Callable[..., dict[str, Any]]) -> None:
    instances = host / "instances"
    instances.mkdir(mode=0o755)
    run(seen=run(files=[str(instances)])["compute"])
    (instances / "guest").touch()
    os.utime(instances, ns=(1, 1))
    assert run(files=[str(instances)])["verified"]
    instances.chmod(0o700)
    assert run(files=[str(instances)])["different"] == [f"file {instances}"]


def test_another_test_guest_is_a_change(host: Path, run: Callable[..., dict[str, Any]]) -> None:
    run(seen=run(about={"flavor": "1"})["compute"])
    assert run(about={"flavor": "1"})["verified"]
    assert run(about={"flavor": "2"})["different"] == ["about"]


def test_an_unreadable_record_is_ignored(host: Path, run: Callable[..., dict[str, Any]]) -> None:
    run(seen=run()["compute"])
    (host / "run" / "stamp").write_text("{")
    assert not run()["verified"]
