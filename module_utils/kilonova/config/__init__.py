# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Configuration files: rendering, installing, masking secrets, INI overrides, oslo.config options, URLs."""
