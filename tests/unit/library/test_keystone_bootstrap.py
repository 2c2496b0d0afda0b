# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""keystone_bootstrap as Ansible runs it."""

from __future__ import annotations

import json
from pathlib import Path

import keystone_bootstrap
import pytest
from ansible.module_utils.testing import patch_module_args


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing listens on port 1, and keystone-manage is not installed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = {"auth_url": "http://127.0.0.1:1/v3", "password": "p", "_ansible_check_mode": True}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        keystone_bootstrap.main()
    result = json.loads(capsys.readouterr().out)
    assert result["changed"] is True
    assert "does not answer yet" in result["reason"]
