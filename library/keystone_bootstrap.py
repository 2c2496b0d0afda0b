#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Give Keystone's administrator an account that the rest of the deployment can log in with."""

from __future__ import annotations

DOCUMENTATION = r"""
module: keystone_bootstrap
short_description: Create or repair the administrator's account in Keystone
version_added: "0.1.0"
description:
  - Logs in to Keystone as the administrator. Where that works nothing is done. The token of an earlier call's login is
    as good while Keystone takes it, since tokens are revoked together with a password.
  - Where Keystone answers and refuses, runs C(keystone-manage bootstrap), which creates the user, the project, the
    roles admin, manager, member, reader and service with their implications and the assignments, or resets the
    password of a user that exists. It creates no endpoint; the catalog does.
  - A file in C(/var/lib/kilonova) says that this has begun until it has ended well. While it is there, the command is
    run again although a login works, since an interrupted one may have made the account and not all of the rest.
  - The password reaches C(keystone-manage) in the variable C(OS_BOOTSTRAP_PASSWORD) of that process's own
    environment, which only root and Keystone's user can read, and never on a command line.
options:
  auth_url:
    description: URL of Keystone's API, with its version.
    type: str
    required: true
  username:
    description: Name of the administrator.
    type: str
    default: admin
  password:
    description: Password of the administrator. It may contain any printable character.
    type: str
    required: true
  project:
    description: Project in which the administrator gets the role admin.
    type: str
    default: admin
  domain:
    description: Name of the domain of user and project; C(keystone-manage bootstrap) knows the default one only.
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
    description: Where Keystone is not there yet, predicts that the account would be created.
  diff_mode:
    support: none
notes:
  - Fails when Keystone does not answer in time, with the last lines of its log, and when the new account cannot log in.
  - "C(keystone-manage bootstrap): https://docs.openstack.org/keystone/2025.1/admin/bootstrap.html"
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Give the administrator an account
  keystone_bootstrap:
    auth_url: http://127.0.0.1:5000/v3
    password: "{{ keystone_admin_password }}"
"""

RETURN = r"""
reason:
  description: Why the account was created or repaired; empty where it already worked.
  returned: success
  type: str
  sample: Keystone refused the login with status 401
not_looked_at:
  description: Why a dry run could not see, though Keystone is installed. RV(ignore:changed) is then false.
  returned: in check mode, when Keystone does not answer
  type: str
"""

import http.client
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.token_cache import TokenFile
from ansible.module_utils.kilonova.system.dry_run import not_looked_at
from ansible.module_utils.kilonova.system.locks import wait_for_earlier_call
from ansible.module_utils.kilonova.system.logs import unit_log

POLL_SECONDS = 0.5
UNIT = "keystone.service"
BEGUN = "/var/lib/kilonova/keystone_bootstrap.begun"


def tokens_url(params: dict[str, Any]) -> str:
    """Where a token is got, and looked at."""
    return f"{params['auth_url'].rstrip('/')}/auth/tokens?nocatalog"


def login_request(params: dict[str, Any]) -> urllib.request.Request:
    """The request for a token of the administrator in the administrator's project."""
    domain = {"name": params["domain"]}
    body = {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {
                    "user": {"name": params["username"], "domain": domain, "password": params["password"]},
                },
            },
            "scope": {"project": {"name": params["project"], "domain": domain}},
        }
    }
    return urllib.request.Request(
        tokens_url(params),
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )


def ask(request: urllib.request.Request, timeout: float) -> tuple[int | None, str]:
    """The status with which Keystone answers, None while it does not, and the token in its answer."""
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return int(answer.status), answer.headers.get("X-Subject-Token") or ""
    except urllib.error.HTTPError as error:
        return error.code, ""
    except (OSError, http.client.HTTPException):
        return None, ""


def login_status(params: dict[str, Any], keep: bool = True) -> int | None:
    """The status with which Keystone answers a login; None while it does not answer. ``keep``: writes a token."""
    url = tokens_url(params)
    login = (url, params["username"], params["domain"], params["project"], params["password"])
    kept = TokenFile("\n".join(login))
    if token := kept.read():
        headers = {"X-Auth-Token": token, "X-Subject-Token": token}
        if ask(urllib.request.Request(url, headers=headers), params["timeout"])[0] == http.client.OK:
            return http.client.CREATED
    status, token = ask(login_request(params), params["timeout"])
    if status == http.client.CREATED and keep and token:
        kept.write(token)
    return status


def unit_failed() -> bool:
    """Whether systemd has given up on Keystone, so that waiting is in vain."""
    return subprocess.run(["systemctl", "is-failed", "--quiet", UNIT], check=False).returncode == 0


def wait_for_login(params: dict[str, Any]) -> int | None:
    """Try until Keystone answers with other than a server error, or the time is over."""
    deadline = time.monotonic() + params["timeout"]
    while True:
        status = login_status(params)
        if status is not None and status < http.client.INTERNAL_SERVER_ERROR:
            return status
        if time.monotonic() > deadline or unit_failed():
            return status
        time.sleep(POLL_SECONDS)


def bootstrap_command(params: dict[str, Any]) -> list[str]:
    """The command line; the password is not on it."""
    return [
        "keystone-manage",
        "bootstrap",
        f"--bootstrap-username={params['username']}",
        f"--bootstrap-project-name={params['project']}",
        "--bootstrap-role-name=admin",
        f"--bootstrap-region-id={params['region']}",
    ]


def run_bootstrap(module: AnsibleModule) -> None:
    """Create or repair the account."""
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


def fail_without_login(module: AnsibleModule, status: int | None, when: str) -> None:
    """Report that nobody can log in."""
    answer = f"answers a login with status {status}" if status else "does not answer"
    module.fail_json(
        msg=f"Keystone at {module.params['auth_url']} {answer} {when}.\n{unit_log(UNIT)}",
    )


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "auth_url": {"type": "str", "required": True},
            "username": {"type": "str", "default": "admin"},
            "password": {"type": "str", "required": True, "no_log": True},
            "project": {"type": "str", "default": "admin"},
            "domain": {"type": "str", "default": "Default"},
            "region": {"type": "str", "default": "RegionOne"},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    wait_for_earlier_call(module, "keystone_bootstrap")
    params = module.params
    status = login_status(params, keep=False) if module.check_mode else wait_for_login(params)
    interrupted = os.path.exists(BEGUN)
    if status == http.client.CREATED and not interrupted:
        module.exit_json(changed=False, reason="")
    if interrupted:
        reason = "an earlier keystone-manage bootstrap was interrupted"
    elif status is None:
        reason = f"Keystone at {params['auth_url']} does not answer yet"
    else:
        reason = f"Keystone refused the login with status {status}"
    if module.check_mode:
        if (status is None or status >= http.client.INTERNAL_SERVER_ERROR) and shutil.which("keystone-manage"):
            not_looked_at(module, "The administrator's account", reason, reason=reason)
        module.exit_json(changed=True, reason=reason)
    if status not in (http.client.CREATED, http.client.UNAUTHORIZED, http.client.NOT_FOUND):
        fail_without_login(module, status, f"within {params['timeout']} s")
    run_bootstrap(module)
    status = wait_for_login(params)
    if status != http.client.CREATED:
        fail_without_login(module, status, "right after keystone-manage bootstrap ended well")
    module.exit_json(changed=True, reason=reason)


if __name__ == "__main__":
    main()
