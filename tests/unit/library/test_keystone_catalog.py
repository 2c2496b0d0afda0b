# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""keystone_catalog as Ansible runs it."""

from __future__ import annotations

import json
from pathlib import Path

import keystone_catalog
import pytest
from ansible.module_utils.testing import patch_module_args


def test_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a clouds file there is no cloud yet."""
    arguments = {"projects": [{"name": "ops"}], "clouds_file": str(tmp_path / "none"), "_ansible_check_mode": True}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        keystone_catalog.main()
    assert json.loads(capsys.readouterr().out)["changes"] == ["create project ops"]
