# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Keep users, permissions and virtual hosts of RabbitMQ as its definitions file says.

Documented in library/rabbitmq_definitions.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.dry_run import not_looked_at
from ansible.module_utils.kilonova.system.logs import unit_log

ARGUMENT_SPEC: dict[str, Any] = {
    "file": {"type": "path", "default": "/etc/rabbitmq/definitions.json"},
    "absent_users": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 120},
}
# What identifies an object of each kind. Queues, exchanges and bindings belong to the services.
KEYS = {
    "users": ("name",),
    "vhosts": ("name",),
    "permissions": ("user", "vhost"),
    "topic_permissions": ("user", "vhost", "exchange"),
}
# RabbitMQ keeps the default of the version that created the virtual host.
NOT_COMPARED = ("default_queue_type",)
TITLES = {
    "users": "user",
    "vhosts": "virtual host",
    "permissions": "permissions of",
    "topic_permissions": "topic permissions of",
}
POLL_SECONDS = 1.0
UNITS = ("epmd.socket", "rabbitmq-server.service")
EXPORT = ("rabbitmqctl", "--silent", "export_definitions", "-", "--format", "json")

Definitions = Mapping[str, Sequence[Mapping[str, Any]]]


def objects(definitions: Definitions, kind: str) -> dict[str, Mapping[str, Any]]:
    """Return {name: object} of one kind."""
    return {" in ".join(str(one[key]) for key in KEYS[kind]): one for one in definitions.get(kind, [])}


def compare(wanted: Definitions, live: Definitions) -> tuple[list[str], list[str]]:
    """Return what differs from the wanted definitions, and what is there in addition, one line each."""
    changes, foreign = [], []
    for kind, title in TITLES.items():
        here, there = objects(wanted, kind), objects(live, kind)
        for name, one in here.items():
            differing = [key for key, value in one.items() if there.get(name, {}).get(key) != value]
            if name not in there:
                changes.append(f"RabbitMQ: {title} {name}")
            elif what := [key for key in differing if key not in NOT_COMPARED]:
                changes.append(f"RabbitMQ: {title} {name} ({', '.join(what)})")
        foreign += [f"RabbitMQ: {title} {name}" for name in there if name not in here]
    return changes, foreign


def without_users(live: Definitions, names: Collection[str]) -> Definitions:
    """Return the definitions after the deletion of users, whose permissions go with them."""
    user_of = {"users": "name", "permissions": "user", "topic_permissions": "user"}
    return dict(live) | {
        kind: [one for one in live.get(kind, []) if one[key] not in names] for kind, key in user_of.items()
    }


def begin() -> subprocess.Popen[str] | None:
    """Start to export the live definitions, which takes a second or two. None where RabbitMQ does not run.

    There, rabbitmqctl would start an epmd of its own, which holds the port of epmd.socket on every address.
    """
    if shutil.which(EXPORT[0]) is None:
        return None
    states = subprocess.run(("systemctl", "is-active", *UNITS), capture_output=True, text=True, check=False).stdout
    if states.split() != ["active"] * len(UNITS):
        return None
    return subprocess.Popen(EXPORT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def exported(process: subprocess.Popen[str] | None, timeout: float) -> tuple[Definitions, str]:
    """Return the live definitions, or an error."""
    if process is None:
        return {}, f"{' and '.join(UNITS)} are not both active"
    try:
        output, error = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {}, f"rabbitmqctl did not answer within {timeout:.0f} s"
    if process.returncode != 0:
        return {}, next(_sentences(error or output), f"rabbitmqctl ended with {process.returncode}")
    return json.loads(output), ""


def _sentences(text: str) -> Iterator[str]:
    yield from (line.strip() for line in text.splitlines() if line.strip())


def run(module: AnsibleModule, begun: subprocess.Popen[str] | None = None) -> None:
    """Import the file if what it defines differs from what lives, and delete users. begun: what begin() returned."""
    file, timeout = module.params["file"], module.params["timeout"]
    if shutil.which(EXPORT[0]) is None or not os.path.exists(file):
        if not module.check_mode:
            module.fail_json(msg=f"RabbitMQ or {file} does not exist on this host")
        # RabbitMQ imports the file when it starts for the first time.
        module.exit_json(changed=False, changes=[], foreign=[])
    deadline = time.monotonic() + timeout
    live, error = exported(begun or begin(), timeout)
    # RabbitMQ may be starting.
    while error and not module.check_mode and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        live, error = exported(begin(), timeout)
    if error and module.check_mode:
        not_looked_at(module, "RabbitMQ's users and permissions", error, changes=[], foreign=[])
    if error:
        module.fail_json(msg=f"RabbitMQ's definitions cannot be read: {error}\n{unit_log('rabbitmq-server')}")
    with open(file, encoding="utf-8") as stream:
        wanted = json.load(stream)
    unwanted = set(module.params["absent_users"]) - set(objects(wanted, "users"))
    deleted = [name for name in objects(live, "users") if name in unwanted]
    changes, foreign = compare(wanted, without_users(live, deleted))
    commands = [["import_definitions", file]] if changes else []
    commands += [["delete_user", name] for name in deleted]
    for command in [] if module.check_mode else commands:
        code, output, failure = module.run_command(["rabbitmqctl", "--silent", *command])
        if code != 0:
            module.fail_json(
                msg=f"'rabbitmqctl {' '.join(command)}' failed: {failure.strip() or output.strip()}\n"
                f"{unit_log('rabbitmq-server')}"
            )
    changes += [f"RabbitMQ: delete user {name}" for name in deleted]
    module.exit_json(changed=bool(changes), changes=changes, foreign=foreign)
