#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Converge MariaDB's databases, users and grants."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mariadb_databases
short_description: Converge MariaDB databases, users and grants
version_added: "0.1.0"
description:
  - Creates and corrects the listed databases, users and grants, and revokes from the listed users all privileges that
    are not listed. Other databases and users stay, except insecure accounts.
  - Logs in as root over the Unix socket, which needs no password.
  - Compares a password by its hash, SHA1(SHA1(password)), which the authentication plugin C(mysql_native_password)
    stores in C(mysql.global_priv), and sends only the hash, so that no log of statements holds a password. A trial
    login would depend on the network path, count as a failed connection, and fail for a locked account as well.
  - Escapes C(_) and C(%) in grants, which MariaDB reads as wildcards
    (https://mariadb.com/kb/en/grant/#database-privileges). Unescaped grants are revoked after the exact ones are made.
options:
  databases:
    description: Databases that must exist.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the database.
        type: str
        required: true
      encoding:
        description: Default character set of the database. Existing tables keep theirs.
        type: str
        default: utf8mb4
      collation:
        description: Default collation. If omitted, any collation of O(databases[].encoding) is accepted.
        type: str
  users:
    description: Users that must exist.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the user.
        type: str
        required: true
      host:
        description: Host from which the user may connect, as MariaDB writes it.
        type: str
        default: "%"
      password:
        description: Password. It may contain any character. A user has either a password or O(users[].unix_socket).
        type: str
        default: ""
      unix_socket:
        description: Whether the system user of the same name logs in over the socket, without a password.
        type: bool
        default: false
      other_password:
        description:
          - A second password that opens the account as well, while clients change from one to the other. Empty for
            none. A password that is in neither option opens nothing any more.
        type: str
        default: ""
      privileges:
        description: All privileges of the user. Other privileges, roles and grant options are revoked.
        type: list
        elements: dict
        default: []
        suboptions:
          database:
            description: Name of the database, not a pattern.
            type: str
            required: true
          privileges:
            description: Privileges on all tables of the database, as C(GRANT) names them.
            type: list
            elements: str
            default: [ALL]
  remove_insecure_users:
    description: Drop accounts without a name, and C(root) accounts that may connect from other hosts.
    type: bool
    default: true
  remove_other_hosts:
    description:
      - Drop accounts that have the name of a listed user and another host.
      - MariaDB prefers such an account, left from an earlier address, if its host is more specific.
    type: bool
    default: false
  login_unix_socket:
    description: Socket of MariaDB.
    type: path
    default: /run/mysqld/mysqld.sock
  login_user:
    description: Account for the login over the socket.
    type: str
    default: root
attributes:
  check_mode:
    support: full
    description: Reads the state and reports what would change. Where MariaDB is not installed, everything would.
  diff_mode:
    support: full
    description: Shows the differences, with passwords as C(***).
notes:
  - Fails when MariaDB refuses the login or a statement, and when the result differs from the options.
requirements: [python3-pymysql]
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Create databases and users
  mariadb_databases:
    databases:
      - name: nova
      - name: nova_api
      - name: nova_cell0
    users:
      - name: nova
        password: "{{ nova_database_password }}"
        privileges:
          - database: nova
          - database: nova_api
          - database: nova_cell0
      - name: backup
        host: localhost
        password: "{{ backup_database_password }}"
        privileges:
          - database: nova
            privileges: [SELECT, LOCK TABLES]
"""

RETURN = r"""
changes:
  description: Changes that were made, or would be in check mode, one line each, in the order of execution.
  returned: always
  type: list
  elements: str
  sample: ["create database nova", "grant ALL PRIVILEGES on nova\\_api to 'nova'@'%'"]
not_looked_at:
  description: Why the state could not be read although MariaDB is installed. RV(ignore:changed) is then false.
  returned: in check mode, when MariaDB does not answer
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.database.mariadb_databases import ARGUMENT_SPEC, run


def main() -> None:
    """Run the module."""
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
