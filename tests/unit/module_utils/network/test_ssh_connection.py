# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Where a process comes from, by the environments of its parents."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.kilonova.network.ssh_connection import ssh_connection


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    for pid, parent, environment in (
        (40, 30, "PATH=/bin\0HOME=/root\0"),
        (30, 20, "SSH_CONNECTION=fe80::1%eth0 51234 192.0.2.10 2222\0SHELL=/bin/sh\0"),
        (25, 1, ""),
    ):
        directory = tmp_path / str(pid)
        directory.mkdir()
        (directory / "environ").write_text(environment)
        (directory / "status").write_text(f"Name:\tsh\nPPid:\t{parent}\n")
    return tmp_path


def test_the_variable_of_a_parent_is_found(proc: Path) -> None:
    assert ssh_connection(40, str(proc)) == {"source": "fe80::1", "port": 2222}


@pytest.mark.parametrize("pid", [25, 99])
def test_a_process_without_ssh(proc: Path, pid: int) -> None:
    assert ssh_connection(pid, str(proc)) == {"source": "", "port": 0}
