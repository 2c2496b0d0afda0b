# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A templar that works each variable out once, as the check of a run has it."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.kilonova.config.rendering import remembering
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar


def templar_with(loader: DataLoader, variables: dict[str, Any]) -> Templar:
    """A templar with these variables."""
    return remembering(Templar(loader=loader, variables=variables))
