# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What keystone_catalog changes, against a small Keystone over HTTP in the test."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud import client, keystone_catalog, token_cache
from ansible.module_utils.kilonova.cloud.catalog_plan import UnknownNames, diff_of, make_changes
from ansible.module_utils.kilonova.cloud.identity import IdentityApi, IdentityError
from ansible.module_utils.testing import patch_module_args
from keystoneauth1 import noauth
from keystoneauth1.session import Session

UGLY = "@:/%$#'\"\\ "


class Keystone(ThreadingHTTPServer):
    """The identity API with collections in memory, which accepts any token for its calls."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data: dict[str, dict[str, dict[str, Any]]] = {
            "domains": {"default": {"id": "default", "name": "Default"}},
            "roles": {"r-admin": {"id": "r-admin", "name": "admin", "domain_id": None}},
            **{name: {} for name in ("regions", "projects", "users", "services", "endpoints")},
        }
        self.assignments: set[tuple[str, str, str]] = set()
        # In the domain, of the system, and inherited.
        self.further_assignments: list[dict[str, Any]] = []
        self.revoked: list[str] = []
        self.passwords: dict[str, str] = {}
        # User and password of each token's login; Keystone revokes tokens when the password changes.
        self.tokens: dict[str, tuple[str, str]] = {}
        self.logins = 0
        self.writes: list[str] = []
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    server: Keystone

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle_call(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else {}
        with self.server.lock:
            status, answer = self.answer(urlsplit(self.path).path.removeprefix("/v3/").split("/"), body)
        data = json.dumps(answer).encode() if answer is not None else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if self.path.endswith("/auth/tokens") and self.command == "POST" and status == 201:
            self.send_header("X-Subject-Token", list(self.server.tokens)[-1])
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_call

    def answer(self, path: list[str], body: dict[str, Any]) -> tuple[int, Any]:
        server, kind = self.server, path[0]
        if path == ["auth", "tokens"] and self.command == "GET":
            name, password = server.tokens[self.headers["X-Subject-Token"]]
            return (200, {"token": {}}) if server.passwords.get(name) == password else (404, {})
        if path == ["auth", "tokens"]:
            server.logins += 1
            user = body["auth"]["identity"]["password"]["user"]
            if server.passwords[user["id"]] != user["password"]:
                return 401, {}
            server.tokens[f"token{len(server.tokens)}"] = (user["id"], user["password"])
            return 201, {}
        if self.command == "GET" and kind == "role_assignments":
            entries = [
                {"scope": {"project": {"id": project}}, "user": {"id": user}, "role": {"id": role}}
                for project, user, role in server.assignments
            ]
            return 200, {kind: [*entries, *server.further_assignments]}
        if self.command == "GET":
            return 200, {kind: list(server.data[kind].values())}
        server.writes.append(f"{self.command} {kind}")
        if self.command == "PUT":
            server.assignments.add((path[1], path[3], path[5]))
            return 204, None
        if self.command == "DELETE" and "roles" in path:
            server.revoked.append("/".join(path))
            server.further_assignments.clear()
            if kind == "projects":
                server.assignments.discard((path[1], path[3], path[5]))
            return 204, None
        if self.command == "DELETE":
            return (204, None) if server.data[kind].pop(path[1], None) else (404, {"error": {"message": "gone"}})
        attributes = body[kind[:-1]]
        if kind == "services" and attributes.get("type") == "refused":
            return 403, {"error": {"message": "not you"}}
        identity = path[1] if self.command == "PATCH" else attributes.get("id", f"{kind}{len(server.data[kind])}")
        entry = server.data[kind].setdefault(identity, {"id": identity})
        if kind == "users":
            server.passwords[identity] = attributes.pop("password", server.passwords.get(identity, ""))
        entry.update(attributes)
        if kind == "projects":
            entry.setdefault("domain_id", "default")
        return 201, {kind[:-1]: entry}


@pytest.fixture
def keystone() -> Iterator[Keystone]:
    server = Keystone()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory of cached tokens."""
    directory = tmp_path / "run" / "tokens"
    monkeypatch.setattr(token_cache, "TOKENS", str(directory))
    return directory


def wanted(**changes: Any) -> dict[str, Any]:
    user: dict[str, Any] = {
        "name": "nova",
        "password": UGLY,
        "email": "root@localhost",
        "description": None,
        "domain": "Default",
        "default_project": "services",
        "options": {},
        "roles": [{"project": "services", "role": "admin"}, {"project": "services", "role": "service"}],
        "exact_roles": False,
    }
    service = {
        "name": "nova",
        "type": "compute",
        "description": "OpenStack Compute",
        "enabled": True,
        "endpoints": {"public": "http://api:8774/v2.1", "internal": "http://api:8774/v2.1", "admin": None},
    }
    return {
        "region": "RegionOne",
        "projects": [{"name": "services", "description": None, "domain": "Default"}],
        "roles": ["service"],
        "users": [user],
        "absent_users": [],
        "services": [service],
        **changes,
    }


def converge(server: Keystone, params: dict[str, Any], keep: bool = True) -> list[str]:
    """One round of the module; returns what it changed."""
    api = IdentityApi(Session(auth=noauth.NoAuth()), f"http://127.0.0.1:{server.server_port}", keep)
    with ThreadPoolExecutor(4) as pool:
        state = keystone_catalog.read_state(api, pool, params, set())
        changes = make_changes(state, params)
        keystone_catalog.apply_changes(api, pool, state, changes)
    diff = json.dumps(diff_of(changes))
    assert json.dumps(UGLY)[1:-1] not in diff
    return [change.text for change in changes]


def test_everything_is_created_once(keystone: Keystone) -> None:
    assert converge(keystone, wanted()) == [
        "create region RegionOne",
        "create project services",
        "create role service",
        "create service compute (nova)",
        "create endpoint compute public",
        "create endpoint compute internal",
        "create user nova",
        "create assignment of nova to services as admin",
        "create assignment of nova to services as service",
    ]
    keystone.writes.clear()
    assert converge(keystone, wanted()) == []
    assert keystone.writes == []
    assert list(keystone.passwords.values()) == [UGLY]
    assert keystone.data["users"]["users0"]["default_project_id"] == "projects0"


def test_a_password_is_proved_by_a_token_until_it_changes(keystone: Keystone, tokens: Path) -> None:
    converge(keystone, wanted())
    assert converge(keystone, wanted(), keep=False) == [] and not tokens.exists()
    for _ in range(3):
        assert converge(keystone, wanted()) == []
    # One login without caching its token, and one with it.
    assert keystone.logins == 2
    keystone.passwords["users0"] = "changed by hand"
    assert converge(keystone, wanted()) == ["update user nova"]
    assert converge(keystone, wanted()) == []
    # The password is again that of the cached token, which a real Keystone would have revoked.
    assert keystone.logins == 3


def test_differences_are_corrected_in_place(keystone: Keystone) -> None:
    converge(keystone, wanted())
    keystone.passwords["users0"] = "other"
    keystone.data["users"]["users0"]["email"] = "x"
    keystone.data["endpoints"]["endpoints0"]["url"] = "http://old"
    keystone.data["services"]["services0"]["name"] = "compute"
    keystone.assignments.pop()
    changes = converge(keystone, wanted())
    assert [text.split(" of ")[0] for text in changes] == [
        "update service compute (nova)",
        f"update endpoint compute {keystone.data['endpoints']['endpoints0']['interface']}",
        "update user nova",
        "create assignment",
    ]
    assert {entry["url"] for entry in keystone.data["endpoints"].values()} == {"http://api:8774/v2.1"}
    assert converge(keystone, wanted()) == []


def test_duplicates_are_removed_and_others_left(keystone: Keystone) -> None:
    converge(keystone, wanted())
    place = {"service_id": "services0", "interface": "public", "region_id": "RegionOne", "enabled": True}
    keystone.data["endpoints"]["e-old"] = {"id": "e-old", "url": "http://old", **place}
    keystone.data["endpoints"]["e-two"] = {"id": "e-two", "url": "http://two", **place, "region_id": "RegionTwo"}
    keystone.data["services"]["a-double"] = {"id": "a-double", "type": "compute", "name": "nova", "enabled": True}
    assert sorted(converge(keystone, wanted())) == [
        "delete endpoint compute public, a duplicate",
        "delete service compute (nova), a duplicate",
    ]
    assert "e-two" in keystone.data["endpoints"]
    assert "services0" in keystone.data["services"]


def test_needless_roles_are_removed_from_users_with_exact_roles_only(keystone: Keystone) -> None:
    converge(keystone, wanted())
    holder = {"user": {"id": "users0"}, "role": {"id": "r-admin"}}
    keystone.further_assignments = [
        {"scope": {"domain": {"id": "default"}}, **holder},
        {"scope": {"system": {"all": True}}, **holder},
        {"scope": {"project": {"id": "projects0"}, "OS-INHERIT:inherited_to": "projects"}, **holder},
        {"scope": {"system": {"all": True}}, "group": {"id": "g"}, "role": {"id": "r-admin"}},
    ]
    assert converge(keystone, wanted()) == []
    params = wanted()
    params["users"][0] |= {"exact_roles": True, "roles": [{"project": "services", "role": "service"}]}
    assert converge(keystone, params) == [
        "delete assignment of nova to services as admin",
        "delete assignment of nova to domain Default as admin",
        "delete assignment of nova to services as admin",
        "delete assignment of nova to the system as admin",
    ]
    assert sorted(keystone.revoked) == [
        "OS-INHERIT/projects/projects0/users/users0/roles/r-admin/inherited_to_projects",
        "domains/default/users/users0/roles/r-admin",
        "projects/projects0/users/users0/roles/r-admin",
        "system/users/users0/roles/r-admin",
    ]
    assert converge(keystone, params) == []


def test_options_of_a_user_are_set_and_others_stay(keystone: Keystone) -> None:
    params = wanted()
    params["users"][0]["options"] = {"ignore_lockout_failure_attempts": True}
    converge(keystone, params)
    user = keystone.data["users"]["users0"]
    assert user["options"] == {"ignore_lockout_failure_attempts": True}
    user["options"] = {"ignore_lockout_failure_attempts": False, "multi_factor_auth_enabled": True}
    assert converge(keystone, params) == ["update user nova"]
    user["options"]["multi_factor_auth_enabled"] = True
    assert converge(keystone, params) == []


def test_a_disabled_user_is_enabled_with_the_password_and_not_logged_in(keystone: Keystone) -> None:
    converge(keystone, wanted())
    keystone.data["users"]["users0"]["enabled"] = False
    del keystone.passwords["users0"]
    assert converge(keystone, wanted()) == ["update user nova"]
    assert keystone.passwords["users0"] == UGLY


def test_only_absent_users_of_the_domain_are_deleted(keystone: Keystone) -> None:
    converge(keystone, wanted())
    for identity, name, domain in (
        ("u1", "compute-a", "default"),
        ("u2", "compute-b", "default"),
        ("u3", "compute-a", "x"),
    ):
        user = {"id": identity, "name": name, "domain_id": domain, "enabled": True}
        keystone.data["users"][identity] = user
    keystone.writes.clear()
    absent = [{"name": name, "domain": domain} for name in ("compute-a", "none") for domain in ("Default", "none")]
    assert converge(keystone, wanted(absent_users=absent)) == ["delete user compute-a"]
    assert sorted(keystone.data["users"]) == ["u2", "u3", "users0"]
    assert keystone.writes == ["DELETE users"]
    assert converge(keystone, wanted(absent_users=absent)) == []


def test_a_deleted_user_is_shown_before_and_not_after(keystone: Keystone) -> None:
    converge(keystone, wanted())
    params = wanted(users=[], absent_users=[{"name": "nova", "domain": "Default"}])
    collections: dict[str, Any] = {kind: list(entries.values()) for kind, entries in keystone.data.items()}
    state = keystone_catalog.State(**collections)
    assert diff_of(make_changes(state, params)) == {"before": {"user nova": {"name": "nova"}}, "after": {}}


def test_a_user_cannot_be_both_there_and_absent(keystone: Keystone) -> None:
    params = wanted(absent_users=[{"name": "nova", "domain": "Default"}])
    with pytest.raises(UnknownNames, match="user nova is in users and in absent_users"):
        converge(keystone, params)
    assert keystone.writes == []


def test_a_reference_to_nothing_is_named_before_any_change(keystone: Keystone) -> None:
    params = wanted(roles=[])
    with pytest.raises(UnknownNames, match="the role 'service'; there are admin"):
        converge(keystone, params)
    assert keystone.writes == []


def test_a_refusal_says_what_keystone_said(keystone: Keystone) -> None:
    params = wanted()
    params["services"][0]["type"] = "refused"
    with pytest.raises(IdentityError, match="POST .*/v3/services answered 403: not you"):
        converge(keystone, params)


def test_a_dry_run_goes_on_without_what_cannot_be_met(
    keystone: Keystone, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        keystone.data["services"][name] = {"id": name, "type": "image", "name": name, "enabled": True}
    keystone.data["users"]["old"] = {"id": "old", "name": "nova-old", "domain_id": "default", "enabled": True}
    (tmp_path / "clouds.yaml").touch()
    session = SimpleNamespace(
        session=Session(auth=noauth.NoAuth()),
        config=SimpleNamespace(config={"auth": {"auth_url": f"http://127.0.0.1:{keystone.server_port}"}}),
    )
    monkeypatch.setattr(keystone_catalog, "connect", lambda module: session)
    image = {"name": "glance", "type": "image", "endpoints": {}}
    params = wanted(roles=[], clouds_file=str(tmp_path / "clouds.yaml"), _ansible_check_mode=True, _ansible_diff=True)
    params["services"].append(image)
    params["absent_users"].append({"name": "nova-old"})
    with patch_module_args(params), pytest.raises(SystemExit):
        keystone_catalog.run(AnsibleModule(argument_spec=keystone_catalog.ARGUMENT_SPEC, supports_check_mode=True))
    result = json.loads(capsys.readouterr().out)
    assert [change for change in result["changes"] if "endpoint" not in change] == [
        "create region RegionOne",
        "create project services",
        "create service compute (nova)",
        "delete user nova-old",
    ]
    assert [text.partition(";")[0] for text in result["needs_you"]] == [
        "user nova is to have the role 'service'",
        "the service glance could be any of one, two, which all have the type image",
    ]
    assert keystone.writes == []


@pytest.mark.parametrize("deployed", [True, False])
def test_a_missing_clouds_file_predicts_a_new_catalog_only_before_the_first_deployment(
    deployed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(client, "mariadb_is_deployed", lambda: deployed)
    params = wanted(clouds_file=str(tmp_path / "clouds.yaml"), _ansible_check_mode=True)
    with patch_module_args(params), pytest.raises(SystemExit):
        keystone_catalog.run(AnsibleModule(argument_spec=keystone_catalog.ARGUMENT_SPEC, supports_check_mode=True))
    result = json.loads(capsys.readouterr().out)
    assert bool(result["changes"]) is not deployed
    assert ("this host is deployed" in result.get("not_looked_at", "")) is deployed
