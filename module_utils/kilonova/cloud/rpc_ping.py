# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ask services over RabbitMQ whether they are at work. The logic of the module rpc_ping."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.kilonova.cloud.health import Unhealthy, problem

# The endpoint that oslo.messaging adds to a service with [DEFAULT] rpc_ping_enabled.
METHOD = "oslo_rpc_server_ping"
ARGUMENT_SPEC: dict[str, Any] = {
    "servers": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "topic": {"type": "str", "required": True},
            "server": {"type": "str", "required": True},
            "host": {"type": "str", "default": ""},
            "unit": {"type": "str", "required": True},
            "layer": {"type": "str", "required": True},
        },
    },
    "exchange": {"type": "str", "required": True},
    "config": {"type": "path", "required": True},
    "timeout": {"type": "int", "default": 20},
}
Server = Mapping[str, Any]
# Asks one server; returns why it did not answer, or nothing.
Ask = Callable[[Server], str]


def asking(config: str, exchange: str, timeout: int) -> Ask:
    """Return a function that asks a server, with the account and certificates of a service's configuration file."""
    # Slow to import, and only there where services are.
    import oslo_messaging
    from oslo_config import cfg

    # The library reads some of its options from the global configuration.
    cfg.CONF([], project="kilonova", default_config_files=[config], default_config_dirs=[])
    transport = oslo_messaging.get_rpc_transport(cfg.CONF)
    # The queue manager would write its files beside those of the services.
    cfg.CONF.set_override("use_queue_manager", False, group="oslo_messaging_rabbit")
    client = oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(exchange=exchange), timeout=timeout)

    def ask(server: Server) -> str:
        try:
            client.prepare(topic=server["topic"], server=server["server"]).call({}, METHOD)
        except oslo_messaging.MessagingException as error:
            return type(error).__name__
        return ""

    return ask


def problems(servers: Iterable[Server], ask: Ask, timeout: int) -> list[dict[str, Any]]:
    """Ask all servers at the same time, and return those that did not answer, as problems of the cloud."""
    servers = list(servers)
    with ThreadPoolExecutor(max_workers=max(len(servers), 1)) as pool:
        answers = list(pool.map(ask, servers))
    found = []
    for server, why in zip(servers, answers, strict=True):
        if why:
            where = f" on {server['host']}" if server["host"] else ""
            text = (
                f"{server['unit']}{where} does not answer calls over RabbitMQ within {timeout} s ({why}), and does no "
                f"work, though it may be up for the APIs; systemctl restart {server['unit']}{where} mends that"
            )
            found.append(problem(server["layer"], text, *([server["host"]] if server["host"] else []), passes=False))
    return found


def run(module: AnsibleModule) -> None:
    servers, timeout = module.params["servers"], module.params["timeout"]
    try:
        ask = asking(module.params["config"], module.params["exchange"], timeout)
    except ImportError:
        module.fail_json(msg=missing_required_lib("python3-oslo.messaging"), exception=traceback.format_exc())
    found = problems(servers, ask, timeout)
    if found:
        error = Unhealthy(found)
        module.fail_json(msg=str(error), problems=found, layer=error.layer)
    module.exit_json(changed=False, problems=[], asked=len(servers))
