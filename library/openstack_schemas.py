#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Upgrade the database schemas of OpenStack services."""

from __future__ import annotations

DOCUMENTATION = r"""
module: openstack_schemas
short_description: Upgrade the database schemas of OpenStack services
version_added: "0.1.0"
description:
  - Compares the revisions in the table C(alembic_version) of each database with the migration scripts of the installed
    service, which it parses without running them. Only a schema that lacks revisions is upgraded, by the service's own
    tool, so that a call without a change starts no tool.
  - Runs the tools in parallel, one for each CPU. Each runs as the system user of its service with a private, temporary
    configuration below C(/run/kilonova), so that the service need not be configured yet. No secret is on a command line
    or in an environment.
  - Keystone's and Glance's tools run the expand, migrate and contract steps together. The service must be stopped, or
    must not have been upgraded elsewhere yet.
  - A tool goes on when the connection to the host is lost or the module is killed. The next call on the host waits for
    it.
  - MariaDB commits each change of a table at once. A killed tool or a power failure can therefore leave a migration
    half applied and not recorded. The same migration then fails, because a table, column or index already exists or no
    longer does. When an upgrade fails in a database that had tables, and only migrations have written rows into them,
    the module drops the tables and starts over. Otherwise it fails and says so.
options:
  schemas:
    description: Schemas to upgrade.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the schema in results, messages and file names.
        type: str
        required: true
      connection:
        description: SQLAlchemy URL of the database, C(mysql+pymysql://user:password@host/database). It must exist.
        type: str
        required: true
      package:
        description: Python package of the service.
        type: str
        required: true
      scripts:
        description: Directory of alembic's version scripts, relative to the package.
        type: str
        required: true
      section:
        description: Section of the configuration whose C(connection) the tool reads.
        type: str
        required: true
      user:
        description: System user that runs the tool.
        type: str
        required: true
      command:
        description: Command that upgrades the schema. C({config}) stands for the options that name the configuration.
        type: list
        elements: str
        required: true
      seeded:
        description: Tables into which the migrations themselves write rows.
        type: list
        elements: str
        default: []
      after:
        description:
          - Commands to run after an upgrade, each a list in the form of O(schemas[].command).
          - They must be safe to repeat. After an interruption or a failure, the next call runs them again. Until they
            have succeeded, a file in C(/var/lib/kilonova) records that.
        type: list
        elements: list
        default: []
  start_over_when_empty:
    description: Drop the tables of a half upgraded database if only migrations have written rows into them.
    type: bool
    default: true
  parallel:
    description: Number of tools that run at the same time; V(0) stands for the number of CPUs.
    type: int
    default: 0
  timeout:
    description: Seconds that one upgrade and the commands after it may take. The module fails then, but the tool goes
      on.
    type: int
    default: 900
attributes:
  check_mode:
    support: full
    description:
      - Reads the state and reports what would change. A schema whose database does not exist or whose service is not
        installed counts as not upgraded.
  diff_mode:
    support: full
    description: Shows the revisions before and after, and the commands after an upgrade.
notes:
  - Fails before any upgrade when a schema is newer than the installed service, when a database cannot be read, and when
    a service is not installed.
  - Fails with the last lines of a tool's output, with secrets masked. The other upgrades are completed first.
requirements: [python3-pymysql, the packages of the services]
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Upgrade the schemas
  openstack_schemas:
    schemas:
      - name: keystone
        connection: "{{ 'keystone' | database_url(keystone_database_password, '192.0.2.10', 'keystone') }}"
        package: keystone
        scripts: common/sql/migrations/versions
        section: database
        user: keystone
        command: [keystone-manage, "{config}", db_sync]
        seeded: [project]
      - name: glance
        connection: "{{ 'glance' | database_url(glance_database_password, '192.0.2.10', 'glance') }}"
        package: glance
        scripts: db/sqlalchemy/alembic_migrations/versions
        section: database
        user: glance
        command: [glance-manage, "{config}", db, sync]
        after:
          - [glance-manage, "{config}", db, load_metadefs]
"""

RETURN = r"""
upgraded:
  description: Names of the schemas that were upgraded, or would be in check mode.
  returned: always
  type: list
  elements: str
schemas:
  description: State of each schema, by name.
  returned: always
  type: dict
  contains:
    before:
      description: Recorded revisions at the start; null where check mode could not read them.
      type: list
      elements: str
    after:
      description: Recorded revisions at the end. In check mode, the heads of the installed scripts.
      type: list
      elements: str
    pending:
      description: Number of missing revisions at the start.
      type: int
    seconds:
      description: Duration of the upgrade and the commands after it, in seconds.
      type: float
    started_over:
      description: Whether the tables of a half upgraded database were dropped.
      type: bool
commands:
  description: Commands of O(schemas[].after) that were run, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [glance-manage db load_metadefs]
needs_you:
  description: Schemas that cannot be upgraded, and why, one sentence each.
  returned: in check mode, when there are any
  type: list
  elements: str
not_looked_at:
  description: Why the databases could not be read although MariaDB is installed. RV(ignore:changed) is then false.
  returned: in check mode, when MariaDB does not answer
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.database.openstack_schemas import ARGUMENT_SPEC, run


def main() -> None:
    """Run the module."""
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
