# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""rpc_ping as Ansible runs it, on a host without services."""

from __future__ import annotations

import importlib.util
import json

import pytest
import rpc_ping
from ansible.module_utils.testing import patch_module_args


@pytest.mark.skipif(bool(importlib.util.find_spec("oslo_messaging")), reason="oslo.messaging is installed here")
def test_without_the_library_it_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    server = {"topic": "conductor", "server": "ctl1", "unit": "nova-conductor", "layer": "Nova conductor"}
    arguments = {"servers": [server], "exchange": "nova", "config": "/etc/nova/nova.conf"}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        rpc_ping.main()
    assert "python3-oslo.messaging" in json.loads(capsys.readouterr().out)["msg"]
