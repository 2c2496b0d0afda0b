#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: flavors, images, networks, security group rules, keypairs and servers of a cloud."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cloud_resources
short_description: Bring flavors, images, networks, rules, keypairs and servers to what is wanted
version_added: "0.1.0"
description:
  - One call converges everything that a new cloud needs before its first guest, and that guest.
  - Reads each kind of thing once, with its REST API (Nova microversion 2.79, Glance v2, Neutron v2.0). A run without a
    change takes about ten requests.
  - Things that are not named are left alone. Differences that can be repaired without harm are repaired (extra specs,
    visibility, image properties, network and subnet settings, a keypair's key). Those that cannot, such as the size
    of a flavor or the range of a subnet, fail with what to do.
  - An image is uploaded anew when its file has another digest than Glance's C(os_hash_value), in Glance's
    C(os_hash_algo). The image that it replaces is deleted, or hidden (C(os_hidden)) while servers were made of it.
  - An image whose upload was cut off (queued, saving, killed) is removed first.
  - A server that exists is kept, whatever its image and flavor. One in ERROR that never ran is made anew, with a
    warning; one in ERROR that ran before is reported, because it may hold data.
  - Where the clouds file does not exist yet, check mode predicts that everything will be created.
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [openstack_client]
options:
  server_timeout:
    description: Seconds to wait for a server to become ACTIVE, or to be deleted.
    type: int
    default: 300
  flavors:
    description: Flavors.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name.
        type: str
        required: true
      id:
        description: Identifier; Nova chooses one where it is missing.
        type: str
      vcpus:
        description: Number of virtual processors.
        type: int
        required: true
      ram:
        description: Memory in MiB.
        type: int
        required: true
      disk:
        description: Root disk in GiB.
        type: int
        required: true
      swap:
        description: Swap disk in MiB.
        type: int
        default: 0
      ephemeral:
        description: Second, empty disk in GiB.
        type: int
        default: 0
      public:
        description: Whether every project may use it.
        type: bool
        default: true
      extra_specs:
        description: All extra specs it shall have. Others are removed; where this is missing, all are left alone.
        type: dict
  images:
    description: Images, owned by the project of O(cloud).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name.
        type: str
        required: true
      path:
        description: File on this host.
        type: path
        required: true
      sha256:
        description: The file's sha256 as hex. The module fails before an upload when the file has another one.
        type: str
      disk_format:
        description: Format of the file.
        type: str
        default: qcow2
      container_format:
        description: Container around the file.
        type: str
        default: bare
      visibility:
        description: Who sees it.
        type: str
        default: public
        choices: [public, private, shared, community]
      min_disk:
        description: Smallest root disk in GiB that it fits on.
        type: int
        default: 0
      min_ram:
        description: Smallest memory in MiB that it boots with.
        type: int
        default: 0
      properties:
        description: Properties it shall have; others are left alone.
        type: dict
  networks:
    description: Networks, owned by the project of O(cloud).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name.
        type: str
        required: true
      type:
        description: Network type; it cannot be changed later. Neutron chooses where it is missing.
        type: str
      physical_network:
        description: Neutron's name of the physical network, for the types flat and vlan.
        type: str
      segmentation_id:
        description: VLAN or tunnel number.
        type: int
      shared:
        description: Whether every project may use it.
        type: bool
        default: false
      external:
        description: Whether routers may have their gateway on it.
        type: bool
        default: false
      port_security:
        description: Whether security groups and address checks apply on it.
        type: bool
        default: true
      mtu:
        description: Largest packet in bytes; 0 leaves it to Neutron.
        type: int
        default: 0
      subnets:
        description: IPv4 subnets, recognised by their range.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name.
            type: str
            required: true
          cidr:
            description: Range such as C(192.168.1.0/24); it cannot be changed later.
            type: str
            required: true
          gateway:
            description: Gateway address. Empty for the first address of the range, V(none) for no gateway.
            type: str
            default: ""
          dhcp:
            description: Whether guests get their address by DHCP.
            type: bool
            default: true
          dns_servers:
            description: Addresses of name servers that guests are told.
            type: list
            elements: str
            default: []
          size:
            description: How many addresses from the first one on may be used, the gateway included. 0 for all.
            type: int
            default: 0
          exclude:
            description: Addresses that no guest may get; those outside of the range do not matter.
            type: list
            elements: str
            default: []
  security_group_rules:
    description: Rules that shall exist; others are left alone. A group that does not exist is created.
    type: list
    elements: dict
    default: []
    suboptions:
      group:
        description: Name of the security group in the project of O(cloud).
        type: str
        default: default
      direction:
        description: Direction seen from the guest.
        type: str
        default: ingress
        choices: [ingress, egress]
      ethertype:
        description: Kind of addresses.
        type: str
        default: IPv4
        choices: [IPv4, IPv6]
      protocol:
        description: Protocol name, such as V(tcp), V(udp), V(icmp), or V(any).
        type: str
        required: true
      port_min:
        description: First port; for ICMP the type.
        type: int
      port_max:
        description: Last port; like O(security_group_rules[].port_min) where it is missing.
        type: int
      remote:
        description: Range on the other side, in CIDR form. Missing for everybody.
        type: str
  keypairs:
    description: Keypairs of the user of O(cloud). Servers that exist keep the key they were created with.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name.
        type: str
        required: true
      public_key:
        description: The public key as one line of OpenSSH.
        type: str
      public_key_file:
        description: File on this host that holds the public key; used where O(keypairs[].public_key) is missing.
        type: path
  servers:
    description: Servers in the project of O(cloud), recognised by their name.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name.
        type: str
        required: true
      state:
        description: V(absent) deletes it, with what its disk holds.
        type: str
        default: present
        choices: [present, absent]
      image:
        description: Name of the image it is created from. Required where it shall be present.
        type: str
      flavor:
        description: Name of its flavor. Required where it shall be present.
        type: str
      networks:
        description: Names of its networks, one interface each. Required where it shall be present.
        type: list
        elements: str
      host:
        description:
          - Name of the compute that a new server is created on, whatever the scheduler thinks (the C(host) of Nova's
            microversion 2.74). Only an administrator may say that.
        type: str
      keypair:
        description: Name of the keypair whose public key the guest gets.
        type: str
      security_groups:
        description: Names of its security groups.
        type: list
        elements: str
        default: [default]
attributes:
  check_mode:
    support: full
    description: Predicts without changing anything.
  diff_mode:
    support: full
    description: Shows each thing that changes, before and after.
"""

EXAMPLES = r"""
- name: Provide what the first guest needs, and boot it
  cloud_resources:
    flavors:
      - {name: m1.tiny, id: "1", vcpus: 1, ram: 512, disk: 1}
    images:
      - name: debian-tiny
        path: /var/lib/kilonova/guest.qcow2
    networks:
      - name: nova
        type: flat
        physical_network: physnet1
        shared: true
        subnets:
          - {name: nova-v4, cidr: 192.168.1.0/24, size: 254, exclude: [192.168.1.9]}
    security_group_rules:
      - {protocol: icmp}
      - {protocol: tcp, port_min: 22}
    keypairs:
      - {name: kilonova, public_key_file: /root/.ssh/kilonova_id_ed25519.pub}
    servers:
      - {name: my_vm, image: debian-tiny, flavor: m1.tiny, networks: [nova], keypair: kilonova}
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, one sentence each, in order.
  returned: always
  type: list
  elements: str
  sample: ["flavor m1.tiny: created"]
ids:
  description: Identifiers by kind (flavor, image, network, subnet, security group) and name.
  returned: always
  type: dict
  sample: {"flavor": {"m1.tiny": "1"}}
servers:
  description:
    - The named servers. Each has id, name, status, fault, host, hypervisor, instance_name, hostname, project_id,
      image_id, keypair, launched_at, flavor (name, vcpus, ram in MiB, disk in GiB) and interfaces (network, address,
      mac).
    - In check mode, servers that would be created are missing.
  returned: always
  type: list
  elements: dict
layer:
  description: The part of the cloud that failed, such as Glance or Nova compute.
  returned: when an API fails or a server does not become ACTIVE
  type: str
not_looked_at:
  description:
    - Why a dry run could not see, though O(clouds_file) exists. RV(ignore:changed) and RV(ignore:actions) then tell
      only of what the other services serve.
  returned: in check mode, when a service does not answer, or answers every token with 401 or 403
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.api import CloudApi, CloudError, layer_logs
from ansible.module_utils.kilonova.cloud.client import CLIENT_ARGUMENTS, connect
from ansible.module_utils.kilonova.cloud.converge import Converger, ServerFailed
from ansible.module_utils.kilonova.cloud.plan import PlanError
from ansible.module_utils.kilonova.system.dry_run import not_looked_at
from ansible.module_utils.kilonova.system.locks import wait_for_earlier_call

KINDS = ("flavors", "images", "networks", "security_group_rules", "keypairs", "servers")


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
ARGUMENTS: dict[str, dict[str, Any]] = {
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
    # A public key is no secret; without no_log=False Ansible warns because of the options' names.
    "keypairs": {
        **_list_of(
            name=NAME,
            public_key=_text(no_log=False),
            public_key_file={"type": "path", "no_log": False},
        ),
        "no_log": False,
    },
    "servers": _list_of(
        name=NAME,
        state=_text("present", choices=["present", "absent"]),
        image=_text(),
        flavor=_text(),
        networks={"type": "list", "elements": "str"},
        host=_text(),
        keypair=_text(no_log=False),
        security_groups=_texts(["default"]),
    ),
}
# These belong to the suboptions of lists, beside their options.
ARGUMENTS["keypairs"]["required_one_of"] = [("public_key", "public_key_file")]
ARGUMENTS["servers"]["required_if"] = [("state", "present", ("image", "flavor", "networks"))]


def prediction(params: dict[str, Any]) -> list[str]:
    """What check mode says about a cloud that does not exist yet."""
    names = {kind: kind[:-1].replace("_", " ") for kind in KINDS}
    return [
        f"{names[kind]} {one.get('name') or one.get('protocol')}: created" for kind in KINDS for one in params[kind]
    ]


def normalised(params: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The wanted things, with extra specs as the text that Nova keeps them as."""
    wanted = {kind: [dict(one) for one in params[kind]] for kind in KINDS}
    for flavor in wanted["flavors"]:
        if flavor["extra_specs"] is not None:
            flavor["extra_specs"] = {name: str(value) for name, value in flavor["extra_specs"].items()}
    return wanted


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    if module.check_mode and not _exists(module.params["clouds_file"]):
        actions = prediction(module.params)
        module.exit_json(changed=bool(actions), actions=actions, ids={}, servers=[])
    wait_for_earlier_call(module, "cloud_resources")
    connection = connect(module)
    wanted = normalised(module.params)
    try:
        work = Converger(
            api=CloudApi(connection),
            project_id=connection.current_project_id or "",
            check_mode=module.check_mode,
            server_timeout=module.params["server_timeout"],
        )
        servers = work.everything(wanted)
    except PlanError as error:
        module.fail_json(msg=f"{str(error)[:1].upper()}{str(error)[1:]}")
    except ServerFailed as error:
        module.fail_json(msg=f"{error.layer}: {error}\n{layer_logs(error.layers)}", layer=error.layer)
    except CloudError as error:
        logs = f"\n{layer_logs([error.layer])}" if error.logs_matter else ""
        module.fail_json(msg=f"{error.layer}: {error}{logs}", layer=error.layer)
    for warning in work.warnings:
        module.warn(warning)
    result = {
        "changed": bool(work.actions),
        "actions": work.actions,
        "ids": work.ids,
        "servers": servers,
        "diff": {"before": work.before, "after": work.after},
    }
    if work.blind:
        # Two kinds of one service have the same reason.
        reasons = {error.layer: str(error) for error in reversed(work.blind)}
        layers = ", ".join(sorted(reasons))
        not_looked_at(module, f"What {layers} serves", "; ".join(reasons[name] for name in sorted(reasons)), **result)
    module.exit_json(**result)


def _exists(path: str) -> bool:
    try:
        with open(path, encoding="utf-8"):
            return True
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    main()
