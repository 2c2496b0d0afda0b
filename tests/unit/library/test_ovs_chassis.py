# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import ovs_chassis
import pytest
from ansible.module_utils.testing import patch_module_args


def test_a_dry_run_before_open_vswitch_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with patch_module_args({"external_ids": {"a": "b"}, "_ansible_check_mode": True}), pytest.raises(SystemExit):
        ovs_chassis.main()
    assert json.loads(capsys.readouterr().out)["changes"] == ["external-ids:a = b"]
