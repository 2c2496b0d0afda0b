# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The module guest_image ends with a result."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import guest_image
import pytest
from ansible.module_utils.testing import patch_module_args


def test_image_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"\xeb" * 512)
    checksum = "sha256:" + hashlib.sha256(b"\xeb" * 512).hexdigest()
    arguments = {"path": str(tmp_path / "image"), "source": str(source), "checksum": checksum}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        guest_image.main()
    result = json.loads(capsys.readouterr().out)
    assert (result["changed"], result["disk_format"]) == (True, "raw")
    assert (tmp_path / "image").read_bytes() == source.read_bytes()
