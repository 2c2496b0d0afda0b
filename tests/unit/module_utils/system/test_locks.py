# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Calls of a module wait for each other. Other processes hold the locks here: a process does not wait for itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system import locks
from ansible.module_utils.testing import patch_module_args

PROJECT = Path(__file__).resolve().parents[4]
HOLD = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lock."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout
            holder.stdout.readline()
            yield holder
        finally:
            holder.kill()


def call(check: bool = False, timeout: float = 0.3) -> None:
    with patch_module_args({"_ansible_check_mode": check}):
        module = AnsibleModule(argument_spec={}, supports_check_mode=True)
        locks.wait_for_earlier_call(module, "a_module", timeout)


def lock() -> Path:
    Path(locks.DIRECTORY).mkdir(exist_ok=True)
    return Path(locks.DIRECTORY) / "a_module.lock"


def test_alone_it_does_not_wait() -> None:
    call()
    assert lock().exists()


def test_earlier_call_is_waited_for() -> None:
    with held(lock()) as holder:
        threading.Timer(0.3, holder.kill).start()
        started = time.monotonic()
        call(timeout=10)
        assert 0.2 < time.monotonic() - started < 5


def test_earlier_call_that_does_not_end(capsys: pytest.CaptureFixture[str]) -> None:
    with held(lock()), pytest.raises(SystemExit):
        call()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert result["failed"]
    assert result["msg"] == (
        f"Nothing was done: a_module of an earlier run is still at work after 0.3 s; see: fuser -v {lock()}"
    )


def test_check_mode_waits_for_nobody() -> None:
    with held(lock()):
        call(check=True)


@pytest.mark.parametrize(
    "name", ["apt_packages", "cloud_resources", "keystone_bootstrap", "keystone_catalog", "mariadb_databases"]
)
def test_modules_wait_for_calls_of_their_own(name: str) -> None:
    files = [*PROJECT.glob(f"library/{name}.py"), *PROJECT.glob(f"module_utils/kilonova/*/{name}.py")]
    text = "\n".join(path.read_text() for path in files)
    assert re.search(rf'^    wait_for_earlier_call\(module, "{name}"', text, re.MULTILINE)
