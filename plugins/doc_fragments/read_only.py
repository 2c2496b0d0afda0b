# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Attributes of modules that only look."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
attributes:
  check_mode:
    support: full
    description: Does the same; the module changes nothing.
  diff_mode:
    support: none
    description: There is nothing to show.
"""
