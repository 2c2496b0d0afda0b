# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Packs the project's modules while the first tasks run, so that no later task waits for it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: prebuild
type: aggregate
short_description: Pack the project's modules beforehand, on another processor
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - Before Ansible first runs a module, it packs it with what it imports, which takes a quarter of a second of one
    processor for each. A run with little to do waits for that more than for anything else.
  - Packs the modules of the project in a process of its own when a playbook begins, into the run's own cache,
    where the tasks then find them. What is not there in time, or cannot be packed, is packed as ever.
  - Prints nothing. Does nothing on a computer with one processor.
requirements:
  - allowed in configuration (C(callback_plugins))
"""

import os
from pathlib import Path
from typing import Any

import ansible.constants as C
from ansible.executor.module_common import modify_module
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.callback import CallbackBase
from ansible.template import Templar

PROJECT = Path(__file__).resolve().parents[2]
LIBRARY = PROJECT / "library"
# In the order in which a deployment needs them; the others follow.
FIRST = ("preflight_facts", "apt_packages", "network_bridge", "config_files", "systemd_units", "guest_image")


def modules() -> list[str]:
    """The project's modules, those that come first first."""
    return sorted((path.stem for path in LIBRARY.glob("*.py")), key=lambda name: (name not in FIRST, name))


def pack(name: str) -> None:
    """Pack one module into the run's cache."""
    modify_module(
        module_name=name,
        module_path=str(LIBRARY / f"{name}.py"),
        module_args={},
        templar=Templar(loader=DataLoader(), variables={}),
        task_vars={},
        module_compression=C.DEFAULT_MODULE_COMPRESSION,
    )


class CallbackModule(CallbackBase):
    """Entry point for Ansible."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "prebuild"

    def v2_playbook_on_start(self, playbook: Any) -> None:
        if len(os.sched_getaffinity(0)) < 2:
            return
        run = os.getpid()
        if os.fork():
            return
        try:
            # Whoever reads the run's output must not wait for this process, nor may it go on after a short run.
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in range(3):
                os.dup2(nothing, stream)
            for name in modules():
                if os.getppid() != run:
                    break
                pack(name)
        finally:
            os._exit(0)
