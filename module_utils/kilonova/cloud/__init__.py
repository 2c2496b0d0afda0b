# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The OpenStack APIs: client, Keystone catalog, cells, resources and health."""
