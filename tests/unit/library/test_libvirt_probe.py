# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The module libvirt_probe ends with a result."""

from __future__ import annotations

import json

import libvirt_probe
import pytest
from ansible.module_utils.kilonova.libvirt import probe
from ansible.module_utils.testing import patch_module_args


def test_dry_run_without_libvirt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        monkeypatch.context() as patched,
        patch_module_args({"_ansible_check_mode": True}),
        pytest.raises(SystemExit),
    ):
        patched.setattr(probe, "find_spec", lambda name: None)
        libvirt_probe.main()
    result = json.loads(capsys.readouterr().out)
    assert (result["changed"], result["probed"], result["hypervisor"]) == (False, True, {})
