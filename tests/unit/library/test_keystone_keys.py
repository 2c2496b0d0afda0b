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
    arguments = {"repositories": [str(tmp_path / "new")], "_ansible_check_mode": True}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        keystone_keys.main()
    result = json.loads(capsys.readouterr().out)
    assert (result["changed"], result["made"]) == (True, [f"{tmp_path}/new/0", f"{tmp_path}/new/1"])
