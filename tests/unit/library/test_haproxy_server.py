# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""haproxy_server as Ansible runs it."""

from __future__ import annotations

import json
from pathlib import Path

import haproxy_server
import pytest
from ansible.module_utils.testing import patch_module_args


def test_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = {"names": ["ctl2"], "proxies": ["nova"], "state": "drained", "socket": str(tmp_path / "none.sock")}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        haproxy_server.main()
    assert "HAProxy does not answer" in json.loads(capsys.readouterr().out)["msg"]
