#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Bootstrap Keystone's admin user."""

from __future__ import annotations

DOCUMENTATION = r"""
module: keystone_bootstrap
short_description: Bootstrap Keystone's admin user
version_added: "0.1.0"
description:
  - Logs in to Keystone as the admin user and does nothing else if that works. A cached token of an earlier call counts
    as a login while Keystone accepts it, because Keystone revokes a user's tokens when the password changes.
  - Runs C(keystone-manage bootstrap) if Keystone refuses the login. It creates the user, the project, the roles admin,
    manager, member, reader and service, their implications and the assignments, or resets the password of an existing
    user. It creates no endpoint; M(keystone_catalog) does.
  - Marks the start of a bootstrap by a file in C(/var/lib/kilonova) and removes it after success. While the file
    exists, the bootstrap is repeated even if the login works, because an interrupted one may have created the user but
    not all roles.
  - Passes the password to C(keystone-manage) in the environment variable C(OS_BOOTSTRAP_PASSWORD), which only root and
    Keystone's user can read, and never on a command line.
options:
  auth_url:
    description: URL of Keystone's API, with its version.
    type: str
    required: true
  username:
    description: Name of the admin user.
    type: str
    default: admin
  password:
    description: Password of the admin user. It may contain any printable character.
    type: str
    required: true
  project:
    description: Project in which the user gets the role admin.
    type: str
    default: admin
  domain:
    description: Domain of the user and the project. C(keystone-manage bootstrap) supports only the default domain.
    type: str
    default: Default
  region:
    description: Region to create.
    type: str
    default: RegionOne
  timeout:
    description: Seconds to wait for Keystone to answer.
    type: int
    default: 120
attributes:
  check_mode:
    support: full
    description: Logs in once, without waiting. Where Keystone is not installed, reports that the user would be created.
  diff_mode:
    support: none
notes:
  - Fails with the last lines of Keystone's log when Keystone does not answer in time, or when the login still fails
    after the bootstrap.
  - "C(keystone-manage bootstrap): https://docs.openstack.org/keystone/2025.1/admin/bootstrap.html"
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Bootstrap the admin user
  keystone_bootstrap:
    auth_url: http://127.0.0.1:5000/v3
    password: "{{ keystone_admin_password }}"
"""

RETURN = r"""
reason:
  description: Why the bootstrap was necessary; empty if it was not.
  returned: success
  type: str
  sample: Keystone refused the login with status 401
needs_you:
  description: What the module cannot repair, one sentence each.
  returned: in check mode, when Keystone refuses the login for another reason than user, password or project
  type: list
  elements: str
not_looked_at:
  description: Why the login could not be tried although Keystone is installed. RV(ignore:changed) is then false.
  returned: in check mode, when Keystone does not answer
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.keystone_bootstrap import ARGUMENT_SPEC, run


def main() -> None:
    """Run the module."""
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
