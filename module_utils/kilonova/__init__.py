# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Shared code of the Kilonova modules, by subject."""
