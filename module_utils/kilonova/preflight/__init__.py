# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of hosts and variables before anything is changed."""
