# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Bootstrap Keystone's admin user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from http import HTTPStatus
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.token_cache import TokenFile, may_cache
from ansible.module_utils.kilonova.system.dry_run import not_looked_at
from ansible.module_utils.kilonova.system.locks import wait_for_earlier_call
from ansible.module_utils.kilonova.system.logs import unit_log

ARGUMENT_SPEC: dict[str, Any] = {
    "auth_url": {"type": "str", "required": True},
    "username": {"type": "str", "default": "admin"},
    "password": {"type": "str", "required": True, "no_log": True},
    "project": {"type": "str", "default": "admin"},
    "domain": {"type": "str", "default": "Default"},
    "region": {"type": "str", "default": "RegionOne"},
    "timeout": {"type": "int", "default": 120},
}
POLL_SECONDS = 0.5
UNIT = "keystone.service"
# Exists from the start of a bootstrap until its success.
BEGUN = "/var/lib/kilonova/keystone_bootstrap.begun"
# Answers to a login that a bootstrap changes to 201. Keystone answers 404 where the project or domain is missing.
REPAIRABLE = (HTTPStatus.CREATED, HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND)


def tokens_url(params: dict[str, Any]) -> str:
    """Return the URL at which tokens are issued and validated."""
    return f"{params['auth_url'].rstrip('/')}/auth/tokens?nocatalog"


def login_body(params: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a request for a token of the user in the project."""
    domain = {"name": params["domain"]}
    user = {"name": params["username"], "domain": domain, "password": params["password"]}
    return {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": params["project"], "domain": domain}},
        }
    }


def send(url: str, timeout: float, headers: dict[str, str], body: Any = None) -> tuple[int | None, str]:
    """Send a request, with POST if it has a body. Return the status, None without an answer, and the issued token."""
    # Imported here, because most hosts import this file and never send a request.
    import http.client
    import urllib.error
    import urllib.request

    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return int(answer.status), answer.headers.get("X-Subject-Token") or ""
    except urllib.error.HTTPError as error:
        return error.code, ""
    except (OSError, http.client.HTTPException):
        return None, ""


def login_status(params: dict[str, Any], keep: bool = True) -> int | None:
    """Log in and return the status of the answer; None if there is no answer. ``keep``: cache the token."""
    url, timeout = tokens_url(params), params["timeout"]
    cached = TokenFile("\n".join((url, params["username"], params["domain"], params["project"], params["password"])))
    if token := cached.read():
        status, _ = send(url, timeout, {"X-Auth-Token": token, "X-Subject-Token": token})
        if status == HTTPStatus.OK:
            return HTTPStatus.CREATED
    status, token = send(url, timeout, {"Content-Type": "application/json"}, login_body(params))
    if status == HTTPStatus.CREATED and keep and token:
        cached.write(token)
    return status


def unit_failed() -> bool:
    """Return whether Keystone's unit has failed, so that waiting is pointless."""
    return subprocess.run(["systemctl", "is-failed", "--quiet", UNIT], check=False).returncode == 0


def wait_for_login(params: dict[str, Any]) -> int | None:
    """Log in until the answer is not a server error, or the timeout is over."""
    deadline = time.monotonic() + params["timeout"]
    while True:
        status = login_status(params)
        if status is not None and status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return status
        if time.monotonic() > deadline or unit_failed():
            return status
        time.sleep(POLL_SECONDS)


def bootstrap_command(params: dict[str, Any]) -> list[str]:
    """Return the command line, without the password."""
    return [
        "keystone-manage",
        "bootstrap",
        f"--bootstrap-username={params['username']}",
        f"--bootstrap-project-name={params['project']}",
        "--bootstrap-role-name=admin",
        f"--bootstrap-region-id={params['region']}",
    ]


def run_bootstrap(module: AnsibleModule) -> None:
    """Run keystone-manage bootstrap as Keystone's user."""
    os.makedirs(os.path.dirname(BEGUN), exist_ok=True)
    with open(BEGUN, "w", encoding="utf-8"):
        pass
    result = subprocess.run(
        bootstrap_command(module.params),
        env=os.environ | {"OS_BOOTSTRAP_PASSWORD": module.params["password"]},
        user="keystone",
        group="keystone",
        extra_groups=[],
        cwd="/var/lib/keystone",
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        last = "\n".join((result.stdout + result.stderr).strip().splitlines()[-20:])
        module.fail_json(msg=f"keystone-manage bootstrap ended with {result.returncode}. Its last lines:\n{last}")
    os.unlink(BEGUN)


def refusal(params: dict[str, Any], status: int | None) -> str:
    """Describe a login that failed."""
    answer = f"answers a login with status {status}" if status else "does not answer"
    return f"Keystone at {params['auth_url']} {answer}"


def predict(module: AnsibleModule, status: int | None, reason: str) -> None:
    """End a dry run in which the login did not work or a bootstrap was interrupted."""
    if status is None or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        if shutil.which("keystone-manage"):
            not_looked_at(module, "The admin user", reason, reason=reason)
    elif status not in REPAIRABLE:
        text = f"{refusal(module.params, status)}, which a bootstrap does not repair; see 'journalctl -u {UNIT}'"
        module.exit_json(changed=False, reason="", needs_you=[text])
    module.exit_json(changed=True, reason=reason)


def run(module: AnsibleModule) -> None:
    """Bootstrap the admin user if it cannot log in."""
    wait_for_earlier_call(module, "keystone_bootstrap")
    params = module.params
    status = login_status(params, keep=may_cache(module)) if module.check_mode else wait_for_login(params)
    interrupted = os.path.exists(BEGUN)
    if status == HTTPStatus.CREATED and not interrupted:
        module.exit_json(changed=False, reason="")
    if interrupted:
        reason = "an earlier keystone-manage bootstrap was interrupted"
    elif status is None:
        reason = f"Keystone at {params['auth_url']} does not answer yet"
    else:
        reason = f"Keystone refused the login with status {status}"
    if module.check_mode:
        predict(module, status, reason)
    if status not in REPAIRABLE:
        module.fail_json(msg=f"{refusal(params, status)} within {params['timeout']} s.\n{unit_log(UNIT)}")
    run_bootstrap(module)
    status = wait_for_login(params)
    if status != HTTPStatus.CREATED:
        when = "right after keystone-manage bootstrap succeeded"
        module.fail_json(msg=f"{refusal(params, status)} {when}.\n{unit_log(UNIT)}")
    module.exit_json(changed=True, reason=reason)
