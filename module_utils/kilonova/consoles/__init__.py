# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Guest consoles: noVNC and serial, over websockets."""
