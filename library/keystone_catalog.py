#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Converge Keystone's projects, roles, users, services and endpoints in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: keystone_catalog
short_description: Converge Keystone's projects, roles, users, services and endpoints in one call
version_added: "0.1.0"
description:
  - Creates what is listed and missing, and corrects what differs. Nothing that is not listed is removed, except
    duplicates of a listed service (same type and name) or endpoint (same service, interface and region).
  - Every collection is read once, several at a time, so that a call costs the same for few and for many entries.
  - Keystone does not reveal password hashes. Whether a password is unchanged is found out by logging in with it,
    without scope, for all users at the same time. Each login costs Keystone one bcrypt computation (about 0.2 s
    of one core); the tries are shared between Keystone's processes.
  - A listed service is recognised by its type and name, or by its type alone where only one service has that type and
    none has both, so that a renamed service keeps its identity. An endpoint with an old URL is updated in place.
  - Talks to the authentication URL of the clouds file and not to the catalog's identity endpoint, so that a
    catalog with an old address can be repaired.
options:
  region:
    description: Region of all endpoints; created when missing.
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
        description: Description of the project. When omitted, any will do.
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
        description: Address of the user. When omitted, any will do.
        type: str
      description:
        description: Description of the user. When omitted, any will do.
        type: str
      domain:
        description: Name of the domain of the user and of the projects named here.
        type: str
        default: Default
      default_project:
        description: Name of the project that is used when a login names none. When omitted, any will do.
        type: str
      roles:
        description: Roles that the user must have. Further ones are left alone.
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
        description: Description of the service. When omitted, any will do.
        type: str
      enabled:
        description: Whether the service appears in tokens' catalogs.
        type: bool
        default: true
      endpoints:
        description: URL of each interface. Interfaces that are not listed are left alone.
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
            description: URL for administrators. Today's services do not need one.
            type: str
attributes:
  check_mode:
    support: full
    description: >-
      Reads the state and reports what would change. Where O(clouds_file) does not exist yet, neither does the cloud,
      and the changes are those that follow the bootstrap.
  diff_mode:
    support: full
    description: Shows exactly the attributes that differ; passwords appear as C(***).
notes:
  - Fails when a name that is referred to is neither listed nor known to Keystone, before anything is changed.
  - Fails with Keystone's answer when it refuses a change; what was done before it stays, and another call goes on.
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
          - {project: services, role: admin}
          - {project: services, role: service}
    services:
      - name: nova
        type: compute
        description: OpenStack Compute
        endpoints:
          public: http://192.0.2.10:8774/v2.1
          internal: http://192.0.2.10:8774/v2.1
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode, one line each.
  returned: always
  type: list
  elements: str
  sample: ["create user nova", "update endpoint compute public"]
not_looked_at:
  description: Why a dry run could not see, though O(clouds_file) exists. RV(ignore:changed) is then false.
  returned: in check mode, when Keystone does not answer
  type: str
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.catalog_plan import (
    COLLECTIONS,
    Change,
    State,
    UnknownNames,
    diff_of,
    make_changes,
    resolve,
)
from ansible.module_utils.kilonova.cloud.client import CLIENT_ARGUMENTS, connect
from ansible.module_utils.kilonova.cloud.identity import IdentityApi, IdentityError
from ansible.module_utils.kilonova.system.locks import wait_for_earlier_call
from ansible.module_utils.kilonova.system.logs import unit_log

# Keystone's processes on one host, more or less; more calls at a time only queue there.
THREADS = 4
# A second round removes what a repeated call may have doubled; see IdentityApi.
ROUNDS = 3
# Each phase needs what the one before it made.
# What keystone-manage bootstrap has made when the catalog is first converged:
# https://docs.openstack.org/keystone/2025.1/admin/bootstrap.html
BOOTSTRAPPED_ROLES = ("admin", "manager", "member", "reader", "service")
PHASES = (("region", "project", "role", "service"), ("user", "endpoint"), ("assignment",))


def read_state(api: IdentityApi, pool: ThreadPoolExecutor, params: dict[str, Any], fresh: set[str]) -> State:
    """Read every collection, then try the passwords of the users but for those named in ``fresh``."""
    calls = {collection: pool.submit(api.list, collection) for collection in COLLECTIONS}
    state = State()
    for collection, call in calls.items():
        setattr(state, collection, call.result())
    tries = {}
    for user in params["users"]:
        found = state.find_user(user)
        # A disabled user cannot log in; enabling it sets the password as well.
        if found and found["enabled"] and user["name"] not in fresh:
            tries[found["id"]] = pool.submit(api.password_is, found["id"], user["password"])
    named = [state.find_project(role["project"], user["domain"]) for user in params["users"] for role in user["roles"]]
    projects = {found["id"] for found in named if found}
    lists = [pool.submit(api.list, "role_assignments", **{"scope.project.id": project}) for project in sorted(projects)]
    state.role_assignments = [entry for call in lists for entry in call.result()]
    state.passwords = {identity: call.result() for identity, call in tries.items()}
    return state


def apply_change(api: IdentityApi, state: State, change: Change) -> None:
    """Make one change; what it refers to by name is looked up in the state, which learns what is created."""
    if change.action == "delete":
        api.delete(change.kind, str(change.identity))
    elif change.kind == "assignment":
        api.assign(*resolve(state, change))
    elif change.action == "create":
        state.learn(change.kind, api.create(change.kind, resolve(state, change)))
    else:
        api.update(change.kind, str(change.identity), resolve(state, change))


def apply_changes(api: IdentityApi, pool: ThreadPoolExecutor, state: State, changes: list[Change]) -> None:
    for phase in PHASES:
        calls = [pool.submit(apply_change, api, state, change) for change in changes if change.kind in phase]
        for call in calls:
            call.result()


def argument_spec() -> dict[str, Any]:
    text = {"type": "str"}
    name = {"type": "str", "required": True}
    domain = {"type": "str", "default": "Default"}

    def entries(options: dict[str, Any]) -> dict[str, Any]:
        return {"type": "list", "elements": "dict", "default": [], "options": options}

    return {
        "region": {"type": "str", "default": "RegionOne"},
        "projects": entries({"name": name, "description": text, "domain": domain}),
        "roles": {"type": "list", "elements": "str", "default": []},
        "users": entries(
            {
                "name": name,
                "password": {"type": "str", "required": True, "no_log": True},
                "email": text,
                "description": text,
                "domain": domain,
                "default_project": text,
                "roles": entries({"project": name, "role": name}),
            }
        ),
        "services": entries(
            {
                "name": name,
                "type": name,
                "description": text,
                "enabled": {"type": "bool", "default": True},
                "endpoints": {
                    "type": "dict",
                    "default": {},
                    "options": {"public": text, "internal": text, "admin": text},
                },
            }
        ),
        **CLIENT_ARGUMENTS,
    }


def finish(module: AnsibleModule, changes: list[Change]) -> NoReturn:
    """End the module with what was changed, or would be."""
    module.exit_json(
        changed=bool(changes),
        changes=[change.text for change in changes],
        diff=diff_of(changes) if module._diff else {},
    )
    raise AssertionError("exit_json() ends the module")


def predict(module: AnsibleModule) -> NoReturn:
    """End a dry run on a host where Keystone is still to be set up."""
    domains = {user["domain"] for user in module.params["users"]} | {"Default"}
    state = State(
        regions=[{"id": module.params["region"]}],
        domains=[{"id": name.lower(), "name": name} for name in sorted(domains)],
        roles=[{"id": name, "name": name, "domain_id": None} for name in BOOTSTRAPPED_ROLES],
    )
    try:
        finish(module, make_changes(state, module.params))
    except UnknownNames as error:
        module.fail_json(msg=str(error))
        raise AssertionError("fail_json() ends the module") from error


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    empty = [user["name"] for user in module.params["users"] if not user["password"]]
    if empty:
        module.fail_json(msg=f"The password of {', '.join(empty)} is empty. Keystone needs one for every user.")
    if module.check_mode and not os.path.exists(module.params["clouds_file"]):
        predict(module)
    wait_for_earlier_call(module, "keystone_catalog")
    connection = connect(module)
    from keystoneauth1.exceptions import ClientException

    api = IdentityApi(connection.session, connection.config.config["auth"]["auth_url"], keep=not module.check_mode)
    first: list[Change] | None = None
    fresh: set[str] = set()
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            for _round in range(ROUNDS):
                state = read_state(api, pool, module.params, fresh)
                changes = make_changes(state, module.params)
                first = changes if first is None else first
                if not changes or module.check_mode:
                    break
                apply_changes(api, pool, state, changes)
                fresh |= {change.name for change in changes if change.kind == "user"}
            else:
                rest = make_changes(read_state(api, pool, module.params, fresh), module.params)
                if rest:
                    names = "; ".join(change.text for change in rest)
                    module.fail_json(msg=f"Keystone accepted every call, yet these would be needed again: {names}.")
    except UnknownNames as error:
        module.fail_json(msg=str(error))
    except (IdentityError, ClientException) as error:
        module.fail_json(msg=f"The catalog could not be converged: {error}\n{unit_log('keystone')}")
    finish(module, first or [])


if __name__ == "__main__":
    main()
