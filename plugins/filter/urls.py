# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters for URLs with credentials, derived passwords, and values of oslo.config files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleFilterError

# Ansible adds module_utils/ to this package for modules, but not for plugins.
MODULE_UTILS = str(Path(__file__).resolve().parents[2] / "module_utils")
if MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(MODULE_UTILS)

from ansible.module_utils.kilonova.config.passwords import derived_password
from ansible.module_utils.kilonova.config.urls import (
    database_url,
    messaging_password,
    messaging_url,
    oslo_escape,
    transport_url,
)


def as_filter(function: Callable[..., str]) -> Callable[..., str]:
    """Return the function with its errors as those of a filter."""

    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> str:
        try:
            return function(*arguments, **options)
        except (TypeError, ValueError) as error:
            raise AnsibleFilterError(f"{function.__name__}: {error}") from error

    return run


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., str]]:
        return {
            "database_url": as_filter(database_url),
            "derived_password": as_filter(derived_password),
            "messaging_password": as_filter(messaging_password),
            "messaging_url": as_filter(messaging_url),
            "transport_url": as_filter(transport_url),
            "oslo_value": as_filter(oslo_escape),
        }
