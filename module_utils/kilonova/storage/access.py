# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Check that a Ceph cluster that something else operates can be used with given keys, without writing into it.

Documented in library/ceph_access.py.
"""

from __future__ import annotations

import errno
import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.preflight.messages import message
from ansible.module_utils.kilonova.system.dry_run import not_looked_at

ARGUMENT_SPEC: dict[str, Any] = {
    "fsid": {"type": "str", "required": True},
    "monitors": {"type": "list", "elements": "str", "required": True},
    "port": {"type": "int", "default": 3300},
    "clients": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": True},
            "writes": {"type": "list", "elements": "str", "default": []},
            "reads": {"type": "list", "elements": "str", "default": []},
        },
    },
    "oldest_release": {"type": "int", "default": 16},
    "timeout": {"type": "int", "default": 15},
}
VARIABLE = "ceph_existing"
REFUSED = (errno.EPERM, errno.EACCES)
# An object and an address that are nowhere.
NO_OBJECT = "kilonova-no-such-object"
NO_ADDRESS = "kilonova/0"
PROFILES = {"writes": "profile rbd", "reads": "profile rbd-read-only"}


def refused(attempt: Callable[[], Any], error_class: type[Exception]) -> bool:
    """Return whether the cluster does not let a client do something. It fails in any case: there is no such object."""
    try:
        attempt()
    except error_class as error:
        return getattr(error, "errno", None) in REFUSED
    return False


def release_number(text: str) -> int | None:
    """Return the number of a release in what monitors say of their version."""
    found = re.search(r"ceph version (\d+)\.", text)
    return int(found[1]) if found else None


def check_release(text: str, oldest: int) -> Iterator[str]:
    """Yield what is wrong with a version."""
    number = release_number(text)
    if number is not None and number < oldest:
        why = f"its monitors are of release {number} ({text}), and services need {oldest}"
        yield message(VARIABLE, ["monitors"], why, "Upgrade that cluster")


def unreachable(error: Exception, name: str, params: Mapping[str, Any]) -> str:
    """Return why a client has no connection."""
    code = abs(getattr(error, "errno", None) or 0)
    if code in REFUSED:
        why = f"the monitors refuse the key of client.{name}"
        return message(VARIABLE, [f"keys.{name}"], why, f"Write what 'ceph auth print-key client.{name}' prints there")
    if code == errno.EINVAL:
        why = f"the key of client.{name} is no key of Ceph"
        return message(VARIABLE, [f"keys.{name}"], why, f"Write what 'ceph auth print-key client.{name}' prints there")
    why = f"no monitor answered client.{name} within {params['timeout']} s ({error})"
    instead = f"Correct it, or let this host reach port {params['port']} of the monitors in the secure mode of msgr2"
    return message(VARIABLE, params["monitors"], why, instead)


class Client:
    """A connection as one client."""

    def __init__(self, rados: Any, client: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        limit = str(params["timeout"])
        settings = {
            "mon_host": ",".join(f"[v2:{address}:{params['port']}]" for address in params["monitors"]),
            "key": client["key"],
            "client_mount_timeout": limit,
            "rados_mon_op_timeout": limit,
            "rados_osd_op_timeout": limit,
            "ms_client_mode": "secure",
            "ms_mon_client_mode": "secure",
            "log_to_stderr": "false",
        }
        self.error_class = rados.Error
        self.missing_class = rados.ObjectNotFound
        self.name, self.client, self.params = client["name"], client, params
        self.connection = rados.Rados(name=f"client.{self.name}", conf=settings)
        try:
            self.connection.connect(timeout=params["timeout"])
        except rados.Error:
            self.connection.shutdown()
            raise

    def ask(self, **command: Any) -> tuple[int, str, str]:
        """Return status, answer and message of a command to the monitors."""
        code, output, text = self.connection.mon_command(
            json.dumps({"format": "json", **command}), b"", timeout=self.params["timeout"]
        )
        return abs(code), bytes(output).decode(), text

    def check(self) -> Iterator[str]:
        """Yield all that is wrong."""
        found = self.connection.get_fsid()
        if found != self.params["fsid"]:
            why = f"the cluster that answers is {found}"
            yield message(VARIABLE, ["fsid"], why, f"Write fsid: {found}, or the monitors of {self.params['fsid']}")
            return
        code, output, _ = self.ask(prefix="version")
        if code:
            yield self.caps("it may not ask the monitors", "mon", "profile rbd")
            return
        yield from check_release(json.loads(output).get("version", ""), self.params["oldest_release"])
        if self.ask(prefix="osd blocklist", blocklistop="add", addr=NO_ADDRESS)[0] in REFUSED:
            yield self.caps("it could not break the locks of a host that died", "mon", "profile rbd")
        for kind, profile in PROFILES.items():
            for pool in self.client[kind]:
                yield from self.check_pool(pool, kind == "writes", f"{profile} pool={pool}")

    def check_pool(self, pool: str, writes: bool, profile: str) -> Iterator[str]:
        """Yield what a client may not do in a pool."""
        try:
            place = self.connection.open_ioctx(pool)
        except self.missing_class:
            yield message(VARIABLE, ["pools"], f"the cluster has no pool {pool!r}", "Make it there, or name another")
            return
        with place:
            attempts = {
                "read": lambda: place.read(NO_OBJECT),
                # What RBD does with its objects.
                "call methods": lambda: place.execute(NO_OBJECT, "rbd", "get_id", b""),
            }
            if writes:
                attempts["write"] = lambda: place.remove_object(NO_OBJECT)
            missing = [what for what, attempt in attempts.items() if refused(attempt, self.error_class)]
        if missing:
            yield self.caps(f"it may not {', '.join(missing)} in the pool {pool!r}", "osd", profile)

    def caps(self, why: str, kind: str, profile: str) -> str:
        """Return the message of a right that is missing."""
        instead = f"Give client.{self.name} {kind} '{profile}' there ('ceph auth caps' sets all rights of a client)"
        return message(VARIABLE, [f"keys.{self.name}"], f"client.{self.name} has too few rights: {why}", instead)


def check_all(rados: Any, params: Mapping[str, Any]) -> tuple[list[str], str]:
    """Return the problems of all clients, and the release."""
    problems: list[str] = []
    release = ""
    for client in params["clients"]:
        try:
            one = Client(rados, client, params)
        except rados.Error as error:
            problems.append(unreachable(error, client["name"], params))
            continue
        try:
            problems += one.check()
            release = release or json.loads(one.ask(prefix="version")[1] or "{}").get("version", "")
        except rados.Error as error:
            problems.append(unreachable(error, client["name"], params))
        finally:
            one.connection.shutdown()
    return list(dict.fromkeys(problems)), release


def failure(problems: Sequence[str]) -> str:
    """Return the message of a failure."""
    return "\n".join(["The existing cluster cannot be used:", *(f"- {text}" for text in problems)])


def run(module: AnsibleModule) -> None:
    """Check all clients."""
    try:
        rados = importlib.import_module("rados")
    except ImportError as error:
        if module.check_mode:
            not_looked_at(module, "The existing cluster", error)
        module.fail_json(msg=f"the package python3-rados is not installed: {error}")
    problems, release = check_all(rados, module.params)
    if problems:
        module.fail_json(msg=failure(problems), problems=problems)
    module.exit_json(changed=False, release=release)
