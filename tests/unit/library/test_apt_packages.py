# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import apt_packages
import pytest
from ansible.module_utils.testing import patch_module_args


@pytest.mark.parametrize(("name", "missing"), [("libc6", []), ("nova-api", ["nova-api"])])
def test_a_dry_run_names_missing_packages(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    missing: list[str],
) -> None:
    for program, text in (("dpkg-query", "libc6\\t2.41\\tok\\tinstalled\\t\\n"), ("apt-get", "")):
        (tmp_path / program).write_text(f"#!/bin/sh\nprintf '{text}'\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with patch_module_args({"names": [name], "_ansible_check_mode": True}), pytest.raises(SystemExit):
        apt_packages.main()
    result = json.loads(capsys.readouterr().out)
    assert (result["missing"], result["lists_updated"]) == (missing, False)
