# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Converge Keystone's projects, roles, users, services and endpoints."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.catalog_plan import (
    COLLECTIONS,
    Change,
    State,
    UnknownNames,
    diff_of,
    find_problems,
    make_changes,
    resolve,
    without,
)
from ansible.module_utils.kilonova.cloud.client import CLIENT_ARGUMENTS, connect, is_first_deployment
from ansible.module_utils.kilonova.cloud.identity import IdentityApi, IdentityError
from ansible.module_utils.kilonova.cloud.token_cache import may_cache
from ansible.module_utils.kilonova.system.locks import wait_for_earlier_call
from ansible.module_utils.kilonova.system.logs import unit_log

# About the number of Keystone's processes; further parallel calls only queue there.
THREADS = 4
# The second round removes duplicates that a repeated call may have created; see CONNECT_RETRIES in identity.py.
ROUNDS = 3
# https://docs.openstack.org/keystone/2025.1/admin/bootstrap.html
BOOTSTRAPPED_ROLES = ("admin", "manager", "member", "reader", "service")
# Each phase needs what the phases before it created.
PHASES = (("region", "project", "role", "service"), ("user", "endpoint"), ("assignment",))

_TEXT = {"type": "str"}
_NAME = {"type": "str", "required": True}
_DOMAIN = {"type": "str", "default": "Default"}


def _entries(options: dict[str, Any]) -> dict[str, Any]:
    return {"type": "list", "elements": "dict", "default": [], "options": options}


ARGUMENT_SPEC: dict[str, Any] = {
    "region": {"type": "str", "default": "RegionOne"},
    "projects": _entries({"name": _NAME, "description": _TEXT, "domain": _DOMAIN}),
    "roles": {"type": "list", "elements": "str", "default": []},
    "users": _entries(
        {
            "name": _NAME,
            "password": {"type": "str", "required": True, "no_log": True},
            "email": _TEXT,
            "description": _TEXT,
            "domain": _DOMAIN,
            "default_project": _TEXT,
            "options": {"type": "dict", "default": {}},
            "roles": _entries({"project": _NAME, "role": _NAME}),
            "exact_roles": {"type": "bool", "default": False},
        }
    ),
    "absent_users": _entries({"name": _NAME, "domain": _DOMAIN}),
    "services": _entries(
        {
            "name": _NAME,
            "type": _NAME,
            "description": _TEXT,
            "enabled": {"type": "bool", "default": True},
            "endpoints": {
                "type": "dict",
                "default": {},
                "options": {"public": _TEXT, "internal": _TEXT, "admin": _TEXT},
            },
        }
    ),
    **CLIENT_ARGUMENTS,
}


def read_state(api: IdentityApi, pool: ThreadPoolExecutor, params: dict[str, Any], fresh: set[str]) -> State:
    """Read all collections, and try the passwords of all users except those in ``fresh``. Raises IdentityError."""
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
    # Those of other projects, of domains and of the system.
    exact = [found["id"] for user in params["users"] if user["exact_roles"] and (found := state.find_user(user))]
    lists += [pool.submit(api.list, "role_assignments", **{"user.id": user}) for user in exact]
    state.role_assignments = [entry for call in lists for entry in call.result()]
    state.passwords = {identity: call.result() for identity, call in tries.items()}
    return state


def apply_change(api: IdentityApi, state: State, change: Change) -> None:
    """Make one change, and add what it creates to the state. Raises IdentityError."""
    if change.action == "delete" and change.kind == "assignment":
        api.revoke(str(change.identity))
    elif change.action == "delete":
        api.delete(change.kind, str(change.identity))
    elif change.kind == "assignment":
        api.assign(*resolve(state, change))
    elif change.action == "create":
        state.learn(change.kind, api.create(change.kind, resolve(state, change)))
    else:
        api.update(change.kind, str(change.identity), resolve(state, change))


def apply_changes(api: IdentityApi, pool: ThreadPoolExecutor, state: State, changes: list[Change]) -> None:
    """Make all changes, phase by phase. Raises IdentityError."""
    for phase in PHASES:
        calls = [pool.submit(apply_change, api, state, change) for change in changes if change.kind in phase]
        for call in calls:
            call.result()


def finish(module: AnsibleModule, changes: list[Change], **result: Any) -> NoReturn:
    """End the module with the changes."""
    module.exit_json(
        changed=bool(changes),
        changes=[change.text for change in changes],
        diff=diff_of(changes) if module._diff else {},
        **result,
    )
    raise AssertionError("exit_json() ends the module")


def predict(module: AnsibleModule, state: State) -> NoReturn:
    """End a dry run with the changes that are possible, and the entries that are not."""
    problems = find_problems(state, module.params)
    changes = make_changes(state, without(module.params, problems))
    finish(module, changes, **({"needs_you": [problem.text for problem in problems]} if problems else {}))


def bootstrapped(params: dict[str, Any]) -> State:
    """Return what a Keystone holds right after its bootstrap."""
    domains = {user["domain"] for user in params["users"]} | {"Default"}
    return State(
        regions=[{"id": params["region"]}],
        domains=[{"id": name.lower(), "name": name} for name in sorted(domains)],
        roles=[{"id": name, "name": name, "domain_id": None} for name in BOOTSTRAPPED_ROLES],
    )


def converge(module: AnsibleModule, api: IdentityApi, pool: ThreadPoolExecutor) -> list[Change]:
    """Make changes until none is left, and return those of the first round.

    Raises IdentityError, UnknownNames and keystoneauth's exceptions.
    """
    params = module.params
    first: list[Change] | None = None
    fresh: set[str] = set()
    for _round in range(ROUNDS):
        state = read_state(api, pool, params, fresh)
        changes = make_changes(state, params)
        first = changes if first is None else first
        if not changes:
            return first
        apply_changes(api, pool, state, changes)
        fresh |= {change.name for change in changes if change.kind == "user"}
    rest = make_changes(read_state(api, pool, params, fresh), params)
    if rest:
        names = "; ".join(change.text for change in rest)
        module.fail_json(msg=f"Keystone accepted every call, yet these would be needed again: {names}.")
    return first or []


def run(module: AnsibleModule) -> None:
    """Converge the catalog."""
    params = module.params
    empty = [user["name"] for user in params["users"] if not user["password"]]
    if empty:
        module.fail_json(msg=f"The password of {', '.join(empty)} is empty. Keystone needs one for every user.")
    if is_first_deployment(module, changes=[]):
        predict(module, bootstrapped(params))
    wait_for_earlier_call(module, "keystone_catalog")
    connection = connect(module)
    from keystoneauth1.exceptions import ClientException

    api = IdentityApi(connection.session, connection.config.config["auth"]["auth_url"], keep=may_cache(module))
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            if module.check_mode:
                predict(module, read_state(api, pool, params, set()))
            finish(module, converge(module, api, pool))
    except UnknownNames as error:
        module.fail_json(msg=str(error))
    except (IdentityError, ClientException) as error:
        module.fail_json(msg=f"The catalog could not be converged: {error}\n{unit_log('keystone')}")
