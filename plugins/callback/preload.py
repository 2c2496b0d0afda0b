# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Load plugins once, before Ansible forks a worker for each task."""

from __future__ import annotations

DOCUMENTATION = r"""
name: preload
type: aggregate
short_description: Load filters, tests and action plugins before workers are forked
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - Ansible runs each task in a forked worker. A plugin not loaded before the fork is loaded again by every worker.
    Loading the filters takes twice as long as a skipped task.
  - Loads them through the public plugin loaders when a playbook starts. Prints nothing.
requirements:
  - allowed in configuration (C(callback_plugins))
"""

from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import action_loader
from ansible.template import Templar, trust_as_template

ACTIONS = Path(__file__).resolve().parents[1] / "action"


def load() -> None:
    """Load all filters and tests, and the project's action plugins."""
    # The first use of a filter and of a test loads all of them.
    templar = Templar(loader=DataLoader(), variables={})
    templar.template(trust_as_template("{{ 1 | default(1) is number }}"))
    for name in ("normal", *(path.stem for path in ACTIONS.glob("*.py"))):
        action_loader.get(name, class_only=True)


class CallbackModule(CallbackBase):
    """Entry point for Ansible."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "preload"

    def v2_playbook_on_start(self, playbook: Any) -> None:
        load()
