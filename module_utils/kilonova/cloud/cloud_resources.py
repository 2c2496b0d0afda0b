# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Converge flavors, images, networks, rules, keypairs, servers, types and quotas of volumes.

The logic of the module cloud_resources.
"""

from __future__ import annotations

from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.api import CloudApi, CloudError, layer_logs
from ansible.module_utils.kilonova.cloud.client import CLIENT_ARGUMENTS, connect, is_first_deployment
from ansible.module_utils.kilonova.cloud.converge import Convergence
from ansible.module_utils.kilonova.cloud.flavors import converge_flavors
from ansible.module_utils.kilonova.cloud.images import converge_images
from ansible.module_utils.kilonova.cloud.keypairs import converge_keypairs
from ansible.module_utils.kilonova.cloud.networks import converge_networks, converge_rules
from ansible.module_utils.kilonova.cloud.plan import PlanError
from ansible.module_utils.kilonova.cloud.servers import ServerFailed, converge_servers
from ansible.module_utils.kilonova.cloud.volumes import converge_volume_quotas, converge_volume_types
from ansible.module_utils.kilonova.system.dry_run import not_looked_at
from ansible.module_utils.kilonova.system.locks import wait_for_earlier_call

KINDS = ("flavors", "images", "networks", "security_group_rules", "keypairs", "volume_types", "servers")


def _list_of(**options: dict[str, Any]) -> dict[str, Any]:
    return {"type": "list", "elements": "dict", "default": [], "options": options}


def _text(default: str | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "str", **({} if default is None else {"default": default}), **more}


def _number(default: int | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "int", **({} if default is None else {"default": default}), **more}


def _flag(default: bool) -> dict[str, Any]:
    return {"type": "bool", "default": default}


def _texts(default: list[str]) -> dict[str, Any]:
    return {"type": "list", "elements": "str", "default": default}


NAME = _text(required=True)
SUBNETS = _list_of(
    name=NAME,
    cidr=_text(required=True),
    gateway=_text(""),
    dhcp=_flag(True),
    dns_servers=_texts([]),
    size=_number(0),
    exclude=_texts([]),
)
ARGUMENT_SPEC: dict[str, Any] = {
    **CLIENT_ARGUMENTS,
    "server_timeout": _number(300),
    "flavors": _list_of(
        name=NAME,
        id=_text(),
        vcpus=_number(required=True),
        ram=_number(required=True),
        disk=_number(required=True),
        swap=_number(0),
        ephemeral=_number(0),
        public=_flag(True),
        extra_specs={"type": "dict"},
    ),
    "images": _list_of(
        name=NAME,
        path={"type": "path", "required": True},
        sha256=_text(),
        disk_format=_text("qcow2"),
        container_format=_text("bare"),
        visibility=_text("public", choices=["public", "private", "shared", "community"]),
        min_disk=_number(0),
        min_ram=_number(0),
        properties={"type": "dict"},
    ),
    "networks": _list_of(
        name=NAME,
        type=_text(),
        physical_network=_text(),
        segmentation_id=_number(),
        shared=_flag(False),
        external=_flag(False),
        port_security=_flag(True),
        mtu=_number(0),
        subnets=SUBNETS,
    ),
    "security_group_rules": _list_of(
        group=_text("default"),
        direction=_text("ingress", choices=["ingress", "egress"]),
        ethertype=_text("IPv4", choices=["IPv4", "IPv6"]),
        protocol=_text(required=True),
        port_min=_number(),
        port_max=_number(),
        remote=_text(),
    ),
    # Public keys are no secrets. Without no_log=False Ansible warns because of the options' names.
    "keypairs": {
        **_list_of(
            name=NAME,
            public_key=_text(no_log=False),
            public_key_file={"type": "path", "no_log": False},
        ),
        "no_log": False,
    },
    "volume_types": _list_of(
        name=NAME,
        description=_text(),
        public=_flag(True),
        extra_specs={"type": "dict"},
    ),
    "volume_quotas": {"type": "dict", "default": {}},
    "servers": _list_of(
        name=NAME,
        state=_text("present", choices=["present", "absent"]),
        image=_text(),
        flavor=_text(),
        networks={"type": "list", "elements": "str"},
        host=_text(),
        only_if_room=_flag(False),
        keypair=_text(no_log=False),
        security_groups=_texts(["default"]),
    ),
}
# These belong beside the suboptions of lists.
ARGUMENT_SPEC["keypairs"]["required_one_of"] = [("public_key", "public_key_file")]
ARGUMENT_SPEC["servers"]["required_if"] = [
    ("state", "present", ("image", "flavor", "networks")),
    ("only_if_room", True, ("host",)),
]


def first_actions(params: dict[str, Any]) -> list[str]:
    """Return what check mode predicts before the cloud exists."""
    names = {kind: kind[:-1].replace("_", " ") for kind in KINDS}
    quotas = [f"volume quotas default: {', '.join(params['volume_quotas'])} changed"] if params["volume_quotas"] else []
    return [
        f"{names[kind]} {one.get('name') or one.get('protocol')}: created" for kind in KINDS for one in params[kind]
    ] + quotas


def normalised(params: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the wanted resources, with extra specs as text, as Nova and Cinder keep them."""
    wanted = {kind: [dict(one) for one in params[kind]] for kind in KINDS}
    for one in [*wanted["flavors"], *wanted["volume_types"]]:
        if one["extra_specs"] is not None:
            one["extra_specs"] = {name: str(value) for name, value in one["extra_specs"].items()}
    return wanted


def converge(
    work: Convergence, wanted: dict[str, list[dict[str, Any]]], volume_quotas: dict[str, int] | None = None
) -> list[dict[str, Any]]:
    """Converge all kinds and return the servers."""
    work.side_by_side(
        lambda part: converge_flavors(part, wanted["flavors"]),
        lambda part: converge_images(part, wanted["images"]),
        lambda part: converge_networks(part, wanted["networks"]),
        lambda part: converge_rules(part, wanted["security_group_rules"]),
        lambda part: converge_keypairs(part, wanted["keypairs"]),
        lambda part: converge_volume_types(part, wanted["volume_types"]),
        lambda part: converge_volume_quotas(part, volume_quotas or {}),
    )
    servers: list[dict[str, Any]] = []
    with work.seeing():
        servers = converge_servers(work, wanted["servers"])
    return servers


def fail_unresolved(module: AnsibleModule, unresolved: list[PlanError], actions: list[str]) -> NoReturn:
    """Fail with all that the operator has to resolve."""
    lines = [str(error) for error in unresolved]
    if len(lines) > 1:
        lines = ["These need you:", *(f"- {line}" for line in lines)]
    lines += [error.details for error in unresolved if error.details]
    logs = layer_logs(dict.fromkeys(layer for error in unresolved for layer in error.log_layers))
    layers = [error.layer for error in unresolved if error.layer]
    module.fail_json(
        msg="\n".join([*lines, logs]).rstrip(),
        changed=bool(actions),
        actions=actions,
        **({"layer": layers[0]} if layers else {}),
    )
    raise AssertionError("fail_json() ends the module")


def run(module: AnsibleModule) -> None:
    if is_first_deployment(module, actions=[], ids={}, servers=[], without_room=[], needs_you=[]):
        actions = first_actions(module.params)
        module.exit_json(changed=bool(actions), actions=actions, ids={}, servers=[], without_room=[], needs_you=[])
    try:
        quotas = {name: int(value) for name, value in module.params["volume_quotas"].items()}
    except (TypeError, ValueError) as error:
        module.fail_json(msg=f"volume_quotas: a limit is no number: {error}.")
    wait_for_earlier_call(module, "cloud_resources")
    connection = connect(module)
    work = Convergence(
        api=CloudApi(connection, patience=0 if module.check_mode else module.params["api_timeout"]),
        project_id=connection.current_project_id or "",
        check_mode=module.check_mode,
        server_timeout=module.params["server_timeout"],
    )
    try:
        servers = converge(work, normalised(module.params), quotas)
    except ServerFailed as error:
        module.fail_json(msg=f"{error.layer}: {error}\n{layer_logs(error.layers)}", layer=error.layer)
    except CloudError as error:
        logs = f"\n{layer_logs([error.layer])}" if error.logs_matter else ""
        module.fail_json(msg=f"{error.layer}: {error}{logs}", layer=error.layer)
    if work.must_stop:
        fail_unresolved(module, work.unresolved, work.actions)
    for warning in work.warnings:
        module.warn(warning)
    result = {
        "changed": bool(work.actions),
        "actions": work.actions,
        "ids": work.ids,
        "servers": servers,
        "without_room": work.without_room,
        "diff": {"before": work.before, "after": work.after},
        "needs_you": [str(error) for error in work.unresolved],
    }
    if work.unseen:
        unseen = sorted(work.unseen, key=lambda error: error.layer)
        layers = ", ".join(error.layer for error in unseen)
        not_looked_at(module, f"What {layers} serves", "; ".join(map(str, unseen)), **result)
    module.exit_json(**result)
