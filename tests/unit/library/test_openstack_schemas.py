# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""openstack_schemas as Ansible runs it."""

from __future__ import annotations

import json

import openstack_schemas
import pytest
from ansible.module_utils.testing import patch_module_args


def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with patch_module_args({"schemas": []}), pytest.raises(SystemExit):
        openstack_schemas.main()
    assert json.loads(capsys.readouterr().out)["changed"] is False
