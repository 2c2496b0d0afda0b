# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""mariadb_databases as Ansible runs it."""

from __future__ import annotations

import json
from pathlib import Path

import mariadb_databases
import pytest
from ansible.module_utils.testing import patch_module_args


def test_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    socket = tmp_path / "none.sock"
    with patch_module_args({"login_unix_socket": str(socket)}), pytest.raises(SystemExit):
        mariadb_databases.main()
    result = json.loads(capsys.readouterr().out)
    assert result["failed"]
    assert f"Cannot log in over {socket} as root" in result["msg"]
