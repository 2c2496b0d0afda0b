# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Plan the changes to Keystone's catalog: pure functions of its state and the parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MASK = "***"
COLLECTIONS = ("regions", "domains", "projects", "roles", "users", "services", "endpoints")

Entry = dict[str, Any]


class UnknownNames(Exception):
    """The parameters cannot be met, such as a role that is neither listed nor in Keystone."""


class Problem(NamedTuple):
    """An entry of the parameters that cannot be met, and why."""

    kind: str  # the parameter that lists it
    entry: Entry
    text: str


@dataclass(frozen=True)
class Change:
    """One call to Keystone.

    ``before`` and ``after`` hold what differs and refer to other entries by name; ``scope`` helps to resolve the names.
    """

    kind: str
    action: str
    label: str
    after: Entry = field(default_factory=dict)
    before: Entry = field(default_factory=dict)
    identity: str | None = None
    name: str = ""
    scope: Entry = field(default_factory=dict, repr=False)

    @property
    def text(self) -> str:
        return f"{self.action} {self.kind} {self.label}"


@dataclass
class State:
    """The collections as Keystone lists them. ``passwords`` maps a user's ID to whether the password is right."""

    regions: list[Entry] = field(default_factory=list)
    domains: list[Entry] = field(default_factory=list)
    projects: list[Entry] = field(default_factory=list)
    roles: list[Entry] = field(default_factory=list)
    users: list[Entry] = field(default_factory=list)
    services: list[Entry] = field(default_factory=list)
    endpoints: list[Entry] = field(default_factory=list)
    role_assignments: list[Entry] = field(default_factory=list)
    passwords: dict[str, bool] = field(default_factory=dict)

    def learn(self, kind: str, entry: Entry) -> None:
        """Add an entry that was created."""
        getattr(self, f"{kind}s").append(entry)

    def domain_id(self, name: str) -> str | None:
        """Return the ID of a domain."""
        return next((domain["id"] for domain in self.domains if domain["name"] == name), None)

    def find_project(self, name: str, domain: str) -> Entry | None:
        """Return a project."""
        return _named(self.projects, name, self.domain_id(domain))

    def find_user(self, user: Entry) -> Entry | None:
        """Return the user for an entry of the parameters."""
        return _named(self.users, user["name"], self.domain_id(user["domain"]))

    def find_role(self, name: str) -> Entry | None:
        """Return a global role."""
        return _named(self.roles, name, None)

    def find_services(self, service: Entry) -> list[Entry]:
        """Return the services with the type and name of an entry, otherwise the only service with its type."""
        same_type = sorted((entry for entry in self.services if entry["type"] == service["type"]), key=_id)
        same_name = [entry for entry in same_type if entry.get("name") == service["name"]]
        if same_name:
            # First the one with endpoints, which clients already use.
            used = {endpoint["service_id"] for endpoint in self.endpoints}
            return sorted(same_name, key=lambda entry: entry["id"] not in used)
        return same_type if len(same_type) == 1 else []


def _id(entry: Entry) -> str:
    return str(entry["id"])


def _named(entries: list[Entry], name: str, domain_id: str | None) -> Entry | None:
    for entry in entries:
        if entry["name"] == name and entry.get("domain_id") == domain_id:
            return entry
    return None


def _label(entry: Entry) -> str:
    return entry["name"] if entry["domain"] == "Default" else f"{entry['domain']}/{entry['name']}"


def _attributes(entry: Entry, *names: str) -> Entry:
    return {name: entry[name] for name in names if entry.get(name) is not None}


def _differing(found: Entry, wanted: Entry) -> tuple[Entry, Entry]:
    after = {name: value for name, value in wanted.items() if found.get(name) != value}
    return {name: found.get(name) for name in after}, after


def make_changes(state: State, params: Entry) -> list[Change]:
    """Return all changes, in an order in which they can be made. Raises UnknownNames."""
    problems = find_problems(state, params)
    if problems:
        raise UnknownNames("Nothing was changed, because " + "; ".join(problem.text for problem in problems) + ".")
    changes: list[Change] = []
    if not any(region["id"] == params["region"] for region in state.regions):
        changes.append(Change("region", "create", params["region"], {"id": params["region"]}))
    changes += _project_changes(state, params["projects"])
    roles = [role for role in dict.fromkeys(params["roles"]) if not state.find_role(role)]
    changes += [Change("role", "create", role, {"name": role}) for role in roles]
    for service in params["services"]:
        changes += _service_changes(state, service, params["region"])
    for user in params["users"]:
        changes += _user_changes(state, user)
    for user in params["users"]:
        changes += _assignment_changes(state, user)
    for user in params["absent_users"]:
        if found := state.find_user(user):
            changes.append(Change("user", "delete", _label(user), before={"name": user["name"]}, identity=found["id"]))
    return changes


def _project_changes(state: State, projects: list[Entry]) -> Iterator[Change]:
    for project in projects:
        wanted = {"enabled": True, **_attributes(project, "description")}
        found = state.find_project(project["name"], project["domain"])
        if found is None:
            after = {"name": project["name"], **wanted}
            yield Change("project", "create", _label(project), after, scope={"domain": project["domain"]})
            continue
        before, after = _differing(found, wanted)
        if after:
            yield Change("project", "update", _label(project), after, before, found["id"])


def _user_changes(state: State, user: Entry) -> Iterator[Change]:
    wanted = {"enabled": True, **_attributes(user, "email", "description", "default_project")}
    scope = {"domain": user["domain"], "password": user["password"]}
    found = state.find_user(user)
    if found is None:
        after = {"name": user["name"], "password": MASK, **wanted}
        if user.get("options"):
            after["options"] = user["options"]
        yield Change("user", "create", _label(user), after, name=user["name"], scope=scope)
        return
    names = {project["id"]: project["name"] for project in state.projects}
    current = {**found, "default_project": names.get(found.get("default_project_id"))}
    before, after = _differing(current, wanted)
    # Keystone keeps options that a call leaves out.
    options = _differing(found.get("options") or {}, user.get("options") or {})
    if options[1]:
        before["options"], after["options"] = options
    # Not tried for a user whose password this call has just set, nor for a disabled one, which gets it when enabled.
    if not state.passwords.get(found["id"], found["enabled"]):
        before["password"], after["password"] = f"{MASK} (old)", f"{MASK} (new)"
    if after:
        yield Change("user", "update", _label(user), after, before, found["id"], user["name"], scope)


def _assignment_changes(state: State, user: Entry) -> Iterator[Change]:
    found = state.find_user(user)
    user_id = found["id"] if found else None
    # Assignments to groups have no user.
    mine = [entry for entry in state.role_assignments if found and entry.get("user", {}).get("id") == user_id]
    held = {grant_path(entry): entry for entry in mine}
    listed = set()
    for project_name, role_name in dict.fromkeys((entry["project"], entry["role"]) for entry in user["roles"]):
        project = state.find_project(project_name, user["domain"])
        role = state.find_role(role_name)
        if found and project and role:
            path = grant_path({"scope": {"project": project}, "user": found, "role": role})
            listed.add(path)
            if path in held:
                continue
        scope = {"user": user, "project": project_name, "role": role_name}
        label = f"of {_label(user)} to {project_name} as {role_name}"
        yield Change("assignment", "create", label, {"role": role_name}, name=user["name"], scope=scope)
    if user["exact_roles"]:
        for path in sorted(held.keys() - listed):
            place, role_name = _place_and_role(state, held[path])
            label = f"of {_label(user)} to {place} as {role_name}"
            yield Change("assignment", "delete", label, before={"role": role_name}, identity=path)


def _place_and_role(state: State, assignment: Entry) -> tuple[str, str]:
    """Return the names of what an assignment is on, and of its role."""
    scope, role = assignment["scope"], assignment["role"]["id"]
    place = "the system"
    for kind, entries, prefix in (("project", state.projects, ""), ("domain", state.domains, "domain ")):
        if kind in scope:
            names = {entry["id"]: entry["name"] for entry in entries}
            place = prefix + str(names.get(scope[kind]["id"], scope[kind]["id"]))
    return place, {entry["id"]: entry["name"] for entry in state.roles}.get(role, role)


def grant_path(assignment: Entry) -> str:
    """Return the path of a user's role assignment in the API. https://docs.openstack.org/api-ref/identity/v3/#roles."""
    scope = assignment["scope"]
    kind = next(kind for kind in ("project", "domain", "system") if kind in scope)
    place = "/system" if kind == "system" else f"/{kind}s/{scope[kind]['id']}"
    path = f"{place}/users/{assignment['user']['id']}/roles/{assignment['role']['id']}"
    # Set by a grant that applies only to the projects below.
    inherited = "OS-INHERIT:inherited_to" in scope
    return f"/OS-INHERIT{path}/inherited_to_projects" if inherited else path


def _service_changes(state: State, service: Entry, region: str) -> Iterator[Change]:
    label = f"{service['type']} ({service['name']})"
    wanted = _attributes(service, "name", "type", "description", "enabled")
    found = state.find_services(service)
    if not found:
        yield Change("service", "create", label, wanted)
    else:
        before, after = _differing(found[0], wanted)
        if after:
            yield Change("service", "update", label, after, before, found[0]["id"])
    for double in found[1:]:
        yield Change("service", "delete", f"{label}, a duplicate", before={"id": double["id"]}, identity=double["id"])
    for interface, url in service["endpoints"].items():
        if url:
            yield from _endpoint_changes(state, service, found[0]["id"] if found else None, interface, url, region)


def _endpoint_changes(
    state: State, service: Entry, service_id: str | None, interface: str, url: str, region: str
) -> Iterator[Change]:
    label = f"{service['type']} {interface}"
    place = (service_id, interface, region)
    keys = ("service_id", "interface", "region_id")
    found = [entry for entry in state.endpoints if tuple(entry[key] for key in keys) == place]
    found.sort(key=lambda entry: (entry["url"] != url, entry["id"]))
    wanted = {"url": url, "enabled": True}
    if not found:
        after = {"interface": interface, "region_id": region, **wanted}
        yield Change("endpoint", "create", label, after, scope={"service": service})
        return
    before, after = _differing(found[0], wanted)
    if after:
        yield Change("endpoint", "update", label, after, before, found[0]["id"])
    for double in found[1:]:
        text, before = f"{label}, a duplicate", {"url": double["url"]}
        yield Change("endpoint", "delete", text, before=before, identity=double["id"])


def find_problems(state: State, params: Entry) -> list[Problem]:
    """Return references to unknown names, contradictions, and services that are ambiguous."""
    domains = {domain["name"] for domain in state.domains}
    names = {domain["id"]: domain["name"] for domain in state.domains}
    projects = {(names.get(entry["domain_id"]), entry["name"]) for entry in state.projects}
    projects |= {(entry["domain"], entry["name"]) for entry in params["projects"]}
    roles = {entry["name"] for entry in state.roles} | set(params["roles"])
    problems = []
    for kind in ("projects", "users"):
        for entry in params[kind]:
            if entry["domain"] not in domains:
                text = f"{entry['name']} is to be in the domain '{entry['domain']}'; there are {_join(domains)}"
                problems.append(Problem(kind, entry, text))
    for user in params["users"]:
        known = {name for domain, name in projects if domain == user["domain"]}
        wanted = [entry["project"] for entry in user["roles"]]
        for name in dict.fromkeys([*wanted, *([user["default_project"]] if user["default_project"] else [])]):
            if name not in known:
                text = f"user {user['name']} refers to the project '{name}'; there are {_join(known)}"
                problems.append(Problem("users", user, text))
        for entry in user["roles"]:
            if entry["role"] not in roles:
                text = f"user {user['name']} is to have the role '{entry['role']}'; there are {_join(roles)}"
                problems.append(Problem("users", user, text))
    listed = {(user["domain"], user["name"]) for user in params["users"]}
    for user in params["absent_users"]:
        if (user["domain"], user["name"]) in listed:
            text = f"user {user['name']} is in users and in absent_users; remove it from one of them"
            problems.append(Problem("absent_users", user, text))
    for service in params["services"]:
        others = [entry.get("name") or "" for entry in state.services if entry["type"] == service["type"]]
        if len(others) > 1 and service["name"] not in others:
            text = (
                f"the service {service['name']} could be any of {_join(set(others))}, which all have the type "
                f"{service['type']}; delete all but one of them (openstack service delete)"
            )
            problems.append(Problem("services", service, text))
    return problems


def without(params: Entry, problems: list[Problem]) -> Entry:
    """Return the parameters without the entries that have a problem."""
    left = dict(params)
    for problem in problems:
        left[problem.kind] = [entry for entry in left[problem.kind] if entry is not problem.entry]
    return left


def _join(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def resolve(state: State, change: Change) -> Any:
    """Return the attributes to send, with names replaced by IDs; for an assignment the IDs (project, user, role)."""
    if change.kind == "assignment":
        user = change.scope["user"]
        parts = (
            state.find_project(change.scope["project"], user["domain"]),
            state.find_user(user),
            state.find_role(change.scope["role"]),
        )
        return tuple(part["id"] for part in parts if part)
    attributes = dict(change.after)
    if "password" in attributes:
        attributes["password"] = change.scope["password"]
    if "default_project" in attributes:
        project = state.find_project(attributes.pop("default_project"), change.scope["domain"])
        attributes["default_project_id"] = project["id"] if project else None
    if change.action == "create" and "domain" in change.scope:
        attributes["domain_id"] = state.domain_id(change.scope["domain"])
    if change.kind == "endpoint" and change.action == "create":
        attributes["service_id"] = state.find_services(change.scope["service"])[0]["id"]
    return attributes


def diff_of(changes: list[Change]) -> dict[str, Entry]:
    """Return the attributes that differ, for Ansible's diff."""
    before: Entry = {}
    after: Entry = {}
    for change in changes:
        for side, value in ((before, change.before), (after, change.after)):
            if value:
                side[f"{change.kind} {change.label}"] = value
    return {"before": before, "after": after}
