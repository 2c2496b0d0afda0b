# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""keystone_keys as Ansible runs it."""

from __future__ import annotations

import json
from pathlib import Path

import keystone_keys
import pytest
from ansible.module_utils.testing import patch_module_args


def test_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = {"seed": "seed", "period_days": 7, "keep_seconds": 1, "_ansible_check_mode": True}
    arguments |= {f"{kind}_repository": str(tmp_path / kind) for kind in ("token", "credential")}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        keystone_keys.main()
    result = json.loads(capsys.readouterr().out)
    assert result["changed"] and f"{tmp_path}/credential/0" in result["made"]
