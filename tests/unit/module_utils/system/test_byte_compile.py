# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Byte-compiling in parallel to dpkg, with a program that records its calls instead of py3compile."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible.module_utils.kilonova.system.byte_compile import ByteCompiler


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "usr" / "py3compile"
    path.parent.mkdir()
    path.write_text(
        f"#!/bin/sh\necho \"$*\" >>{tmp_path}/done\ncase $* in *broken*) echo 'bad syntax' >&2; exit 3;; esac\n"
    )
    path.chmod(0o755)
    return path


def compiler(tmp_path: Path, program: Path) -> ByteCompiler:
    return ByteCompiler(str(tmp_path / "state"), str(program), processors=2)


def done(tmp_path: Path) -> list[str]:
    path = tmp_path / "done"
    return sorted(path.read_text().splitlines()) if path.exists() else []


def script(work: ByteCompiler, *arguments: str) -> None:
    """Run py3compile as a postinst script does, with the search path from apt."""
    command = ["sh", "-ec", 'command -v py3compile >/dev/null; py3compile "$@"', "postinst", *arguments]
    subprocess.run(command, env={"PATH": work.path}, check=True)


def test_the_real_program_handles_all_calls(tmp_path: Path, program: Path) -> None:
    with compiler(tmp_path, program) as work:
        for number in range(20):
            script(work, "-p", f"python3-{number}")
        script(work, "-p", "python3-x", "/usr/share/x", "-V", "3.8-")
    wanted = [f"-p python3-{number}" for number in range(20)] + ["-p python3-x /usr/share/x -V 3.8-"]
    assert done(tmp_path) == sorted(wanted)
    assert (work.waiting(), work.problems) == ([], [])


def test_a_failure_is_reported_and_stops_nothing(tmp_path: Path, program: Path) -> None:
    with compiler(tmp_path, program) as work:
        script(work, "-p", "broken")
        script(work, "-p", "fine")
    assert done(tmp_path) == ["-p broken", "-p fine"]
    assert work.problems == [f"{program} -p broken ended with 3:\nbad syntax"]


def test_an_interrupted_queue_is_finished_later_and_once(tmp_path: Path, program: Path) -> None:
    killed = compiler(tmp_path, program)
    with killed:
        pass
    for name in ("a", "b", "a"):
        script(killed, "-p", name)
    later = compiler(tmp_path, program)
    assert later.waiting() == ["-p a", "-p b"]
    later.finish()
    assert done(tmp_path) == ["-p a", "-p b"]
    assert later.waiting() == []


def test_no_call_compiles_nothing(tmp_path: Path, program: Path) -> None:
    with compiler(tmp_path, program):
        pass
    assert done(tmp_path) == []


def test_the_queue_is_finished_when_dpkg_fails(tmp_path: Path, program: Path) -> None:
    with pytest.raises(RuntimeError, match="dpkg"), compiler(tmp_path, program) as work:
        script(work, "-p", "a")
        raise RuntimeError("dpkg")
    assert done(tmp_path) == ["-p a"]
