# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The background build of the test image leaves no job file."""

from __future__ import annotations

from typing import Any


def test_no_job_files_are_left(host: Any) -> None:
    assert host.check_output("find /root -maxdepth 2 -path '/root/.ansible_async/*'") == ""
