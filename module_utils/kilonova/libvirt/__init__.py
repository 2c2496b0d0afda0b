# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What libvirt runs on a compute."""
