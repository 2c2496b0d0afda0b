# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What a module says in a dry run (check mode) about a service that it cannot ask.

Two cases look alike to a client and are not: a service that is not there yet, of which everything will be made, and
one that is deployed and does not answer, of which nothing is known until it does. Predicting a change in the second
case would be a guess, so the module reports none and says that it did not look.
"""

from __future__ import annotations

import os
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

# MariaDB makes this directory when it is installed, or started for the first time.
MARIADB_TABLES = "/var/lib/mysql/mysql"
# https://mariadb.com/kb/en/mariadb-error-codes/: no server at the socket or address, connection lost
UNREACHABLE = (2002, 2003, 2006, 2013)


def mariadb_is_deployed() -> bool:
    """Whether MariaDB has its own tables on this host, running or not."""
    return os.path.isdir(MARIADB_TABLES)


def unreachable(error: Exception) -> bool:
    """Whether an error of PyMySQL's says that there was no server to talk to, rather than that it refused."""
    return bool(error.args) and error.args[0] in UNREACHABLE


def not_looked_at(module: AnsibleModule, what: str, why: object, **result: Any) -> NoReturn:
    """End a dry run with no prediction. ``what`` begins the sentence, ``why`` is the cause as its client put it."""
    text = f"{what} could not be looked at: {why}"
    module.warn(f"{text}. What a run would change there is not known.")
    module.exit_json(**{"changed": False, "not_looked_at": text, **result})
    raise AssertionError("exit_json() ends the module")
