# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Report in check mode that a service does not answer.

A service that is not deployed yet will be set up completely. Of a deployed service that does not answer, nothing is
known: a module predicts no change, and reports that it did not look.
"""

from __future__ import annotations

import os
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

# Created when MariaDB is installed or first started.
MARIADB_TABLES = "/var/lib/mysql/mysql"
# No server at the socket or address, or connection lost: https://mariadb.com/kb/en/mariadb-error-codes/
UNREACHABLE = (2002, 2003, 2006, 2013)


def mariadb_is_deployed() -> bool:
    """Return whether MariaDB has system tables on this host."""
    return os.path.isdir(MARIADB_TABLES)


def unreachable(error: Exception) -> bool:
    """Return whether a PyMySQL error means that no server answered, not that it refused."""
    return bool(error.args) and error.args[0] in UNREACHABLE


def not_looked_at(module: AnsibleModule, what: str, why: object, **result: Any) -> NoReturn:
    """End a dry run without a prediction. ``what`` begins the sentence, ``why`` is the error."""
    text = f"{what} could not be looked at: {why}"
    module.warn(f"{text}. What a run would change there is not known.")
    module.exit_json(**{"changed": False, "not_looked_at": text, **result})
    raise AssertionError("exit_json() ends the module")
