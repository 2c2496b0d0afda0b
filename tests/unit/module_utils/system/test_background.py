# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Background calls: results, errors, and a program that ends before its call."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ansible.module_utils.kilonova.system.background import Background

SOURCE = Path(__file__).resolve().parents[4] / "module_utils" / "kilonova" / "system" / "background.py"


def test_a_call_starts_at_once_and_returns_its_result() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def call() -> int:
        begun.set()
        return 42 if go_on.wait(5) else 0

    background = Background(call)
    assert begun.wait(5)
    go_on.set()
    assert background.result() == 42
    assert background.result() == 42


def test_an_error_is_raised_by_result() -> None:
    background = Background(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        background.result()


def test_a_failed_program_does_not_wait() -> None:
    program = f"""
import importlib.util, sys, threading
spec = importlib.util.spec_from_file_location("background", {str(SOURCE)!r})
background = importlib.util.module_from_spec(spec)
spec.loader.exec_module(background)
background.Background(threading.Event().wait)
sys.exit(3)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode == 3
