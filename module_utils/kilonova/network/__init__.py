# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Network configuration of a host, with rollback."""
