# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What modules have in common that ask monitors as the administrator (module_utils/kilonova/storage/cluster.py)."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
attributes:
  check_mode:
    support: full
    description: Waits 5 seconds for a quorum, and for nothing else.
requirements:
  - python3-rados on the host, and the key of C(client.admin)
"""
