# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The host: packages, systemd units, logs, locks, background work, dry runs."""
