# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""nova_cells as Ansible runs it."""

from __future__ import annotations

import json

import nova_cells
import pytest
from ansible.module_utils.kilonova.config.urls import database_url
from ansible.module_utils.testing import patch_module_args


def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing listens on port 1."""
    arguments = {
        "api_connection": database_url("nova", "pass", "127.0.0.1", "nova_api", port=1),
        "cell0_connection": database_url("nova", "pass", "127.0.0.1", "nova_cell0", port=1),
    }
    with patch_module_args(arguments), pytest.raises(SystemExit):
        nova_cells.main()
    result = json.loads(capsys.readouterr().out)
    assert result["failed"]
    assert "Nova's databases cannot be read" in result["msg"]
