# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Wait for what is found to become what is wanted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ansible.module_utils.basic import AnsibleModule

Found = TypeVar("Found")


def look_until(
    module: AnsibleModule,
    look: Callable[[], Found],
    wanted: Callable[[Found], bool],
    deadline: float,
    seconds: float,
) -> Found:
    """Look every so many seconds until what is found is wanted, or until a deadline; once in check mode."""
    found = look()
    while not wanted(found) and time.monotonic() < deadline and not module.check_mode:
        time.sleep(seconds)
        found = look()
    return found
