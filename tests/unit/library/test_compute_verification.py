# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The module compute_verification: what counts as another compute than the one on which a guest was seen."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import compute_verification
import pytest
from ansible.module_utils.testing import patch_module_args

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
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with a configuration file, packages, and a systemctl that prints what is in a file."""
    monkeypatch.setattr(compute_verification, "DIRECTORY", str(tmp_path / "run"))
    monkeypatch.setattr(compute_verification, "STAMP", str(tmp_path / "run" / "stamp"))
    monkeypatch.setattr(compute_verification, "PACKAGES", str(tmp_path / "status"))
    for name, content in {"shown": SHOWN, "status": "Package: nova-compute", "nova.conf": "[DEFAULT]"}.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "bin").mkdir()
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.write_text(f"#!/bin/sh\ncat {tmp_path}/shown\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return tmp_path


@pytest.fixture
def run(host: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def call(check: bool = False, **options: Any) -> dict[str, Any]:
        given = options or {
            "units": UNITS,
            "files": [str(host / "nova.conf"), str(host / "other.conf")],
            "about": {"flavor": "1"},
        }
        with patch_module_args({**given, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            compute_verification.main()
        return dict(json.loads(capsys.readouterr().out))

    return call


def test_a_compute_is_verified_once_a_guest_was_seen(run: Callable[..., dict[str, Any]]) -> None:
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
        # The last start of what does not run says nothing.
        ("shown", SHOWN.replace("bbbb", "cccc"), []),
        ("status", "Package: qemu-system-x86", ["packages"]),
        ("nova.conf", "[default]", ["file nova.conf"]),
        ("other.conf", "", ["file other.conf"]),
    ],
)
def test_what_is_another_compute(
    host: Path, run: Callable[..., dict[str, Any]], name: str, content: str, different: list[str]
) -> None:
    run(seen=run()["compute"])
    (host / name).write_text(content)
    os.utime(host / name, ns=(1, 1))
    found = run()
    assert [text.replace(f"{host}/", "") for text in found["different"]] == different
    assert found["verified"] is (not different)


def test_another_guest_is_another_question(host: Path, run: Callable[..., dict[str, Any]]) -> None:
    run(seen=run(about={"flavor": "1"})["compute"])
    assert run(about={"flavor": "1"})["verified"]
    assert run(about={"flavor": "2"})["different"] == ["about"]


def test_a_stamp_that_cannot_be_read_counts_as_none(host: Path, run: Callable[..., dict[str, Any]]) -> None:
    run(seen=run()["compute"])
    (host / "run" / "stamp").write_text("{")
    assert not run()["verified"]
