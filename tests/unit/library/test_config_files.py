# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import config_files
import pytest
from ansible.module_utils.testing import patch_module_args


def test_the_module_installs_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoded = base64.b64encode(b"x\n").decode()
    file = {"dest": str(tmp_path / "x"), "owner": str(os.getuid()), "group": str(os.getgid()), "encoded": encoded}
    with patch_module_args({"files": [file]}), pytest.raises(SystemExit):
        config_files.main()
    assert json.loads(capsys.readouterr().out)["written_files"] == [file["dest"]]
    assert (tmp_path / "x").read_text() == "x\n"
