# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters of the templates: URLs with credentials, and values of oslo.config files."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ansible.errors import AnsibleFilterError


def _service_urls() -> ModuleType:
    # By path: on the computer that runs Ansible, module_utils/ is not on the import path of filters.
    name = "kilonova_service_urls"
    if name not in sys.modules:
        path = Path(__file__).resolve().parents[2] / "module_utils" / "kilonova" / "config" / "urls.py"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def _filter(function: str) -> Callable[..., str]:
    def run(*arguments: Any, **options: Any) -> str:
        try:
            return str(getattr(_service_urls(), function)(*arguments, **options))
        except (TypeError, ValueError) as error:
            raise AnsibleFilterError(f"{function}: {error}") from error

    return run


class FilterModule:
    """database_url, transport_url and oslo_value; module_utils/kilonova/config/urls.py documents their arguments.

    Usage: ``'nova' | database_url(password, host, 'nova_api')``, ``'openstack' | transport_url(password, hosts)``,
    ``connection = {{ value | oslo_value }}``.
    """

    def filters(self) -> dict[str, Callable[..., str]]:
        return {
            "database_url": _filter("database_url"),
            "transport_url": _filter("transport_url"),
            "oslo_value": _filter("oslo_escape"),
        }
