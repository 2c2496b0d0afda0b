#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_definitions
short_description: Keep users, permissions and virtual hosts of RabbitMQ as its definitions file says
version_added: "0.1.0"
description:
  - Compares users with the hashes of their passwords and their tags, permissions, topic permissions, and virtual hosts
    with a definitions file, and imports the file if something differs. RabbitMQ itself reads the file when it starts.
  - Deletes only the users in O(absent_users). What else the file does not have is returned in RV(foreign).
author: The Kilonova authors (@kilonova)
options:
  file:
    description: Absolute path of the definitions file.
    type: path
    default: /etc/rabbitmq/definitions.json
  absent_users:
    description: Names of users to delete with their permissions. RabbitMQ closes their connections.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait for RabbitMQ, which may be starting. A dry run asks once.
    type: int
    default: 120
attributes:
  check_mode:
    support: full
    description: Before RabbitMQ is installed, predicts nothing, since RabbitMQ imports the file at its first start.
  diff_mode:
    support: none
    description: The differences are hashes of passwords.
notes:
  - Fails if C(rabbitmqctl) cannot reach RabbitMQ or refuses the file, with the last log lines.
  - "Form of the file: https://www.rabbitmq.com/docs/definitions"
"""

EXAMPLES = r"""
- name: Keep users and permissions
  rabbitmq_definitions:
    file: /etc/rabbitmq/definitions.json

- name: Keep accounts, and delete one of an earlier version
  rabbitmq_definitions:
    file: /etc/rabbitmq/definitions.json
    absent_users: [openstack]
"""

RETURN = r"""
changes:
  description: What was imported because it differed, and who was deleted, one line each.
  returned: always
  type: list
  elements: str
  sample: ["RabbitMQ: user openstack (password_hash)"]
foreign:
  description: Users, permissions, topic permissions and virtual hosts that the file does not have.
  returned: always
  type: list
  elements: str
  sample: ["RabbitMQ: user guest"]
not_looked_at:
  description: Why a dry run could not compare. RV(ignore:changed) is then false.
  returned: in check mode, if RabbitMQ does not answer
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.rabbitmq_definitions import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
