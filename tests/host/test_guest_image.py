# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The background build of the test image leaves no job file."""

from __future__ import annotations

import os
from typing import Any

import pytest


# A run that is killed while the image is built leaves the file of its job (docs/operate/troubleshooting.md).
@pytest.mark.skipif(os.environ.get("MOLECULE_SCENARIO_NAME") == "default", reason="the first runs were killed")
def test_no_job_files_are_left(host: Any) -> None:
    assert host.check_output("find /root -maxdepth 2 -path '/root/.ansible_async/*'") == ""
