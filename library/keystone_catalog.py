#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Converge Keystone's projects, roles, users, services and endpoints."""

from __future__ import annotations

DOCUMENTATION = r"""
module: keystone_catalog
short_description: Converge Keystone's projects, roles, users, services and endpoints in one call
version_added: "0.1.0"
description:
  - Creates the listed entries that are missing and corrects those that differ. Entries that are not listed stay, except
    duplicates of a listed service (same type and name) or endpoint (same service, interface and region).
  - Deletes the users in O(absent_users), and no others.
  - Reads each collection once, several at a time, so that the duration hardly depends on the number of entries.
  - Tests whether a password is unchanged by logging in with it, without scope, because Keystone does not reveal
    password hashes. The logins of all users run in parallel. A cached token of an earlier login saves the login while
    Keystone accepts the token.
  - Recognises a listed service by its type and name. If no service has both and only one has the type, that one is
    renamed, so that it keeps its ID. An endpoint with an old URL is updated in place.
  - Calls the authentication URL of the clouds file and not the identity endpoint in the catalog, so that it can repair
    a catalog with an old address.
options:
  region:
    description: Region of all endpoints. It is created if it is missing.
    type: str
    default: RegionOne
  projects:
    description: Projects that must exist and be enabled.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the project.
        type: str
        required: true
      description:
        description: Description of the project. If omitted, any is accepted.
        type: str
      domain:
        description: Name of the domain, which must exist.
        type: str
        default: Default
  roles:
    description: Names of roles that must exist.
    type: list
    elements: str
    default: []
  users:
    description: Users that must exist and be enabled.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the user.
        type: str
        required: true
      password:
        description: Password, not empty.
        type: str
        required: true
      email:
        description: Email address of the user. If omitted, any is accepted.
        type: str
      description:
        description: Description of the user. If omitted, any is accepted.
        type: str
      domain:
        description: Name of the domain of the user and of the projects below.
        type: str
        default: Default
      default_project:
        description: Project of a login that names none. If omitted, any is accepted.
        type: str
      roles:
        description: Roles that the user must have. Other roles of the user stay, unless O(users[].exact_roles) is set.
        type: list
        elements: dict
        default: []
        suboptions:
          project:
            description: Name of the project, listed or existing.
            type: str
            required: true
          role:
            description: Name of the role, listed or existing.
            type: str
            required: true
      exact_roles:
        description: >-
          Whether to remove all other roles of the user, on projects, domains and the system. Roles of groups stay.
        type: bool
        default: false
      options:
        description: >-
          Options of the user, such as C(ignore_lockout_failure_attempts); others stay. See
          U(https://docs.openstack.org/api-ref/identity/v3/#create-user).
        type: dict
        default: {}
  absent_users:
    description: Users to delete, with their roles. Keystone revokes their tokens.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the user.
        type: str
        required: true
      domain:
        description: Name of the domain of the user. A user of a domain that does not exist is absent.
        type: str
        default: Default
  services:
    description: Services that must be in the catalog.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the service.
        type: str
        required: true
      type:
        description: Type of the service, such as V(compute).
        type: str
        required: true
      description:
        description: Description of the service. If omitted, any is accepted.
        type: str
      enabled:
        description: Whether the catalog of a token lists the service.
        type: bool
        default: true
      endpoints:
        description: URL of each interface. Interfaces that are not listed stay as they are.
        type: dict
        default: {}
        suboptions:
          public:
            description: URL for users.
            type: str
          internal:
            description: URL for other services.
            type: str
          admin:
            description: URL for administrators. Current services need none.
            type: str
attributes:
  check_mode:
    support: full
    description: >-
      Reads the state and reports what would change. If O(clouds_file) does not exist, the cloud does not exist either,
      and the changes are those after a bootstrap.
  diff_mode:
    support: full
    description: Shows the attributes that differ, with passwords as C(***).
notes:
  - Fails before any change when an option refers to a name that is neither listed nor in Keystone, or when a user is in
    O(users) and in O(absent_users).
  - Fails with Keystone's answer when Keystone refuses a change. Earlier changes stay, and the next call continues.
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [openstack_client]
"""

EXAMPLES = r"""
- name: Register the services
  keystone_catalog:
    region: RegionOne
    projects:
      - name: services
        description: Users of the services themselves
    roles: [service]
    users:
      - name: nova
        password: "{{ nova_service_password }}"
        email: root@localhost
        default_project: services
        roles:
          - {project: services, role: service}
        exact_roles: true
        options: {ignore_lockout_failure_attempts: true}
    services:
      - name: nova
        type: compute
        description: OpenStack Compute
        endpoints:
          public: http://192.0.2.10:8774/v2.1
          internal: http://192.0.2.10:8774/v2.1

- name: Delete the user of a host that left
  keystone_catalog:
    absent_users: [{name: nova-compute-cmp2}]
"""

RETURN = r"""
changes:
  description: Changes that were made, or would be in check mode, one line each.
  returned: always
  type: list
  elements: str
  sample: ["create user nova", "update endpoint compute public", "delete user nova-compute-cmp2"]
needs_you:
  description: Entries that the module cannot converge, and why, one sentence each. The changes leave them out.
  returned: in check mode, when there are any
  type: list
  elements: str
not_looked_at:
  description: Why the state could not be read although O(clouds_file) exists. RV(ignore:changed) is then false.
  returned: in check mode, when Keystone does not answer
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.keystone_catalog import ARGUMENT_SPEC, run


def main() -> None:
    """Run the module."""
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
