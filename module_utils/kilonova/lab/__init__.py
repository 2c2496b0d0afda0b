# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Disposable machines on this computer."""
