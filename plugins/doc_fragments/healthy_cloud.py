# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Documentation of the options in ``HEALTH_ARGUMENTS`` (module_utils/kilonova/cloud/health.py)."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  computes:
    description: Hosts that must be up as hypervisors, by the names that Nova knows.
    type: list
    elements: str
    default: []
  images:
    description: Names of images that must be active.
    type: list
    elements: str
    default: []
  silent_hosts:
    description: Hosts that are known not to answer. That their services and agents are down is no problem.
    type: list
    elements: str
    default: []
"""
