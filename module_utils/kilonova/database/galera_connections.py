# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Let the connections of services to a member of a Galera cluster end that gets no new ones.

Documented in library/galera_connections.py.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.database.mariadb import ROOT_SOCKET, connect_socket, require_pymysql, rows

ARGUMENT_SPEC: dict[str, Any] = {
    "timeout": {"type": "float", "default": 15.0},
    "socket": {"type": "path", "default": ROOT_SOCKET},
}
POLL_SECONDS = 0.5
# Those over TCP: services come through HAProxy, members of the cluster and administrators do not.
CONNECTIONS = """
SELECT p.ID AS id, p.COMMAND = 'Sleep' AND p.TIME_MS >= 500 AND t.trx_id IS NULL AS idle
FROM information_schema.PROCESSLIST p LEFT JOIN information_schema.INNODB_TRX t ON t.trx_mysql_thread_id = p.ID
WHERE p.HOST LIKE '%:%'
"""


def end_idle(connection: Any) -> tuple[int, int]:
    """End connections that are between two transactions. Returns how many, and how many are left."""
    import pymysql

    found = rows(connection, CONNECTIONS)
    ended = 0
    for one in found:
        if one["idle"]:
            with connection.cursor() as cursor, contextlib.suppress(pymysql.err.OperationalError):
                ended += cursor.execute(f"KILL CONNECTION {int(one['id'])}") == 0
    return ended, len(found) - ended


def run(module: AnsibleModule) -> None:
    """End connections until none is left, or the time is over."""
    require_pymysql(module)
    import pymysql

    deadline, ended = time.monotonic() + module.params["timeout"], 0
    try:
        connection = connect_socket(module.params["socket"], "root")
        while True:
            if module.check_mode:
                ended, left = 0, len(rows(connection, CONNECTIONS))
                break
            more, left = end_idle(connection)
            ended += more
            if not left or time.monotonic() >= deadline:
                break
            time.sleep(POLL_SECONDS)
    except pymysql.MySQLError as error:
        module.fail_json(msg=f"MariaDB of this host does not answer: {error}. See journalctl -u mariadb.")
    module.exit_json(changed=ended > 0, ended=ended, left=left)
