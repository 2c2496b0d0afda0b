# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import pytest
import systemd_units
from ansible.module_utils.testing import patch_module_args


def test_the_module_starts_a_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "systemctl"
    program.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\necho LoadState=loaded\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with patch_module_args({"units": [{"name": "x"}], "wait": False}), pytest.raises(SystemExit):
        systemd_units.main()
    assert json.loads(capsys.readouterr().out)["started"] == ["x.service"]
    assert "start --no-block -- x.service" in (tmp_path / "calls").read_text()
