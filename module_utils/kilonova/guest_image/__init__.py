# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The image of the test guest."""
