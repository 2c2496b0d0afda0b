# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""MariaDB and the database schemas of OpenStack services."""
