# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The host itself: locks, logs, background work, dry runs."""
