# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the rendering tests."""

from __future__ import annotations

import pytest

from tests.render import rendering

INVENTORIES = ("all_in_one", "clustered", "multihost", "storage")


@pytest.fixture(scope="session", params=INVENTORIES)
def sample(request: pytest.FixtureRequest) -> rendering.Sample:
    """Each sample inventory in turn."""
    return rendering.load(request.param)


@pytest.fixture(scope="session")
def rendered(sample: rendering.Sample) -> dict[str, list[rendering.File]]:
    """All files of all hosts of a sample inventory, by host."""
    return {host: sample.files(host) for host in sample.hosts()}
