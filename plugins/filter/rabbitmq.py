# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Filters for the definitions file of RabbitMQ."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleFilterError

# Ansible adds module_utils/ to this package for modules, but not for plugins.
MODULE_UTILS = str(Path(__file__).resolve().parents[2] / "module_utils")
if MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(MODULE_UTILS)

from ansible.module_utils.kilonova.config.passwords import derived_password
from ansible.module_utils.kilonova.config.urls import messaging_password

Account = Mapping[str, Any]

EVERYTHING = ".*"
ACTIONS = ("configure", "write", "read")


def rabbitmq_password_hash(password: str) -> str:
    """Return base64(salt + sha256(salt + password)).

    The salt is derived from the password, so that an unchanged password does not change the file. Only RabbitMQ can
    read the file, and the password is random. Format:
    https://www.rabbitmq.com/docs/passwords#computing-password-hash
    """
    data = password.encode()
    salt = hashlib.sha256(b"rabbitmq definitions" + data).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + data).digest()).decode()


def compute_messaging(host: str, seed: str, virtual_host: str, turn: str = "") -> dict[str, Any]:
    """Return the account of the nova-compute of a host, as the key ``messaging`` of a service map has them.

    turn: part of the name of the account. Two are in use in turn, so that the password can change.

    It reads the queues of this compute. Queues of replies and of fanouts are named by the queue manager of
    oslo.messaging after host, process and a number. To publish on an exchange, oslo.messaging declares it first
    (configure). Replies go through the default exchange, which leads to every queue of the virtual host.
    """
    name = re.escape(host)
    queues = rf"compute|compute\.{name}|(compute_fanout|reply)_{name}:nova-compute:\d+"
    return {
        # Not at the end, where the name of another host may have it.
        "user": f"compute{turn}-{host}",
        "password": derived(seed, host),
        "virtual_host": virtual_host,
        "configure": f"^({queues}|nova|compute_fanout|scheduler_fanout)$",
        "write": rf"^({queues}|nova|compute_fanout|scheduler_fanout|amq\.default)$",
        "read": f"^({queues}|nova|compute_fanout)$",
        # Without it, a queue of its own could be bound to what the exchange delivers to others.
        "topics": [{"exchange": "nova", "write": r"^(conductor|compute(\..+)?)$", "read": rf"^compute(\.{name})?$"}],
    }


def derived(seed: str, host: str) -> str:
    """Return the password of a compute's account."""
    try:
        return derived_password(seed, "messaging", host)
    except ValueError as error:
        raise AnsibleFilterError(f"compute_messaging: {error}") from error


def rpc_servers(
    services: Iterable[Mapping[str, Any]], groups: Mapping[str, Iterable[str]], silent: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """Return what answers calls over RabbitMQ, as the module rpc_ping takes it, one entry for each configuration file.

    silent: hosts to leave out.
    """
    left_out = set(silent)
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for service in services:
        hosts = dict.fromkeys(host for group in service["groups"] for host in groups.get(group, []))
        for entry in service.get("rpc", []):
            own = {key: entry[key] for key in ("topic", "unit", "layer")}
            servers = found.setdefault((entry["config"], entry["exchange"]), [])
            servers += [
                {**own, "server": f"{host}{entry.get('suffix', '')}", "host": host}
                for host in hosts
                if host not in left_out
            ]
    return [
        {"config": config, "exchange": exchange, "servers": servers} for (config, exchange), servers in found.items()
    ]


def rabbitmq_definitions(accounts: Iterable[Account]) -> dict[str, Any]:
    """Return the content of a definitions file with these accounts."""
    accounts = list(accounts)
    return {
        "users": [
            {
                "name": account["user"],
                "password_hash": rabbitmq_password_hash(messaging_password(account["password"])),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": [],
            }
            for account in accounts
        ],
        "vhosts": [
            {"name": name, "default_queue_type": "quorum"}
            for name in dict.fromkeys(account["virtual_host"] for account in accounts)
        ],
        "permissions": [
            {"user": account["user"], "vhost": account["virtual_host"]}
            | {action: account.get(action, EVERYTHING) for action in ACTIONS}
            for account in accounts
        ],
        "topic_permissions": [
            {"user": account["user"], "vhost": account["virtual_host"], **topic}
            for account in accounts
            for topic in account.get("topics", [])
        ],
    }


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "compute_messaging": compute_messaging,
            "rabbitmq_definitions": rabbitmq_definitions,
            "rabbitmq_password_hash": rabbitmq_password_hash,
            "rpc_servers": rpc_servers,
        }
