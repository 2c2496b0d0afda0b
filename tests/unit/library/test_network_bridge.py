# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The module network_bridge ends with a result."""

from __future__ import annotations

import json
from pathlib import Path

import network_bridge
import pytest
from ansible.module_utils.kilonova.network import bridge
from ansible.module_utils.testing import patch_module_args


def test_inspected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stands = {"token": "t1", "armed": True, "applied": False, "undone": ""}
    monkeypatch.setattr(bridge, "status", lambda: stands)
    monkeypatch.setattr(bridge, "journal", lambda module, token: f"log of {token}")
    with patch_module_args({"state": "inspected"}), pytest.raises(SystemExit):
        network_bridge.main()
    result = json.loads(capsys.readouterr().out)
    assert (result["changed"], result["status"], result["log"]) == (False, stands, "log of t1")
