# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ceph: keys, monitors, OSDs, pools."""
