# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Make the project's Ansible code importable in tests.

A module of library/ is imported by its bare name, shared code as ansible.module_utils.NAME, action plugins and filters
as plugins.action.NAME and plugins.filter.NAME.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ansible.module_utils

PROJECT = Path(__file__).resolve().parent.parent

for directory in (PROJECT, PROJECT / "library"):
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
if str(PROJECT / "module_utils") not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(str(PROJECT / "module_utils"))
