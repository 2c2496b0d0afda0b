# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Read which units belong to a layer of the cloud, and which log files to a unit.

A layer is the part of the cloud that a failure is blamed on, such as "Nova API". The role base writes the index from
the maps of all services, the same on every host:

    {"layers": {"Nova API": ["nova-api"]}, "logs": {"mariadb": ["mysql/error.log"]}}
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

PATH = "/var/lib/kilonova/services.json"


@dataclass(frozen=True)
class ServiceIndex:
    """Names of units have no suffix; log files are glob patterns below /var/log."""

    layers: dict[str, list[str]] = field(default_factory=dict)
    logs: dict[str, list[str]] = field(default_factory=dict)
    problem: str = ""  # why the index is empty


def read_index() -> ServiceIndex:
    """Return the index of this host, empty if the file is missing or not usable. Never raises."""
    try:
        with open(PATH, encoding="utf-8") as stream:
            data = json.load(stream)
        return ServiceIndex(
            {str(layer): [str(unit) for unit in units] for layer, units in data["layers"].items()},
            {str(unit): [str(pattern) for pattern in patterns] for unit, patterns in data["logs"].items()},
        )
    except FileNotFoundError:
        return ServiceIndex(problem=f"{PATH} is missing on this host; run site.yml")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        return ServiceIndex(problem=f"{PATH} on this host cannot be read ({reason}); run site.yml")
