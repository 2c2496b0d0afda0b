# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import time
import zipfile
from pathlib import Path

import pytest

from module_utils import kept_code


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "module.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("ansible/", b"")
        packed.writestr("ansible/look.py", b"new")
        packed.writestr("ansible/utils/shared.py", b"shared")
        packed.writestr("sitecustomize.py", b"of this call only")
    return path


def located(archive: Path, tmp_path: Path, sources: str = "one", module: str = "look") -> list[str]:
    return kept_code.locate([f"{archive}/ansible"], sources, module, kept=str(tmp_path / "run" / "code"))


def files(tmp_path: Path) -> dict[str, str]:
    top = tmp_path / "run" / "code"
    return {str(path.relative_to(top)): path.read_text() for path in top.rglob("*") if path.is_file()}


def test_a_module_is_unpacked_once(archive: Path, tmp_path: Path) -> None:
    wanted = [str(tmp_path / "run/code/one/ansible"), f"{archive}/ansible"]
    assert located(archive, tmp_path) == wanted
    assert files(tmp_path) == {
        "one/ansible/look.py": "new",
        "one/ansible/utils/shared.py": "shared",
        "one/look.complete": "",
    }
    assert (tmp_path / "run/code").stat().st_mode & 0o777 == 0o700
    archive.unlink()
    assert located(archive, tmp_path) == wanted


def test_another_module_adds_what_it_has_besides(archive: Path, tmp_path: Path) -> None:
    located(archive, tmp_path)
    before = (tmp_path / "run/code/one/ansible/utils/shared.py").stat().st_mtime_ns
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr("ansible/probe.py", b"probe")
    located(archive, tmp_path, module="probe")
    assert {"one/ansible/probe.py", "one/look.complete", "one/probe.complete"} <= set(files(tmp_path))
    # Its byte code stays good.
    assert (tmp_path / "run/code/one/ansible/utils/shared.py").stat().st_mtime_ns == before


def test_an_interrupted_call_is_made_up_for(archive: Path, tmp_path: Path) -> None:
    located(archive, tmp_path)
    (tmp_path / "run/code/one/look.complete").unlink()
    (tmp_path / "run/code/one/ansible/look.py").rename(tmp_path / "run/code/one/ansible/look.py.4711")
    located(archive, tmp_path)
    assert files(tmp_path)["one/ansible/look.py"] == "new"


@pytest.mark.parametrize("directory", ["run", "run/code"])
def test_what_others_may_write_to_is_not_used(archive: Path, tmp_path: Path, directory: str) -> None:
    located(archive, tmp_path)
    (tmp_path / directory).chmod(0o1777)
    assert located(archive, tmp_path) == [f"{archive}/ansible"]


def test_a_link_is_not_used(archive: Path, tmp_path: Path) -> None:
    located(archive, tmp_path)
    (tmp_path / "run/code").rename(tmp_path / "run/elsewhere")
    (tmp_path / "run/code").symlink_to("elsewhere")
    assert located(archive, tmp_path) == [f"{archive}/ansible"]


def test_without_a_place_to_write_the_archive_serves(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("no directory")
    assert located(archive, tmp_path) == [f"{archive}/ansible"]


def test_what_no_call_has_used_for_a_day_is_forgotten(archive: Path, tmp_path: Path) -> None:
    yesterday = time.time() - kept_code.FORGOTTEN_SECONDS - 60
    for sources in ("old", "used"):
        located(archive, tmp_path, sources=sources)
        os.utime(tmp_path / "run/code" / sources, (yesterday, yesterday))
    located(archive, tmp_path, sources="used")
    located(archive, tmp_path)
    assert {path.name for path in (tmp_path / "run/code").iterdir()} == {"one", "used"}
