# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Configuration files: INI overrides, oslo.config options, URLs."""
