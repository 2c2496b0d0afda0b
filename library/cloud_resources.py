#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: converge flavors, images, networks, rules, keypairs, servers, types and quotas of volumes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cloud_resources
short_description: Converge flavors, images, networks, rules, keypairs, servers, types and quotas of volumes
version_added: "0.1.0"
description:
  - Converges everything that a new cloud needs before its first guest, and that guest, in one call.
  - Reads each kind of resource once through its REST API (Nova microversion 2.79, Glance v2, Neutron v2.0, Cinder
    v3). A call without changes makes about ten requests.
  - Resources that are not named are left alone. Harmless differences are corrected - extra specs, visibility, image
    properties, network and subnet settings, a keypair's key. Others, such as the size of a flavor or the range of a
    subnet, are left alone; the module then fails with a list of them all and says what to do. In check mode it lists
    them in RV(needs_you).
  - An image is uploaded again when its file does not match Glance's C(os_hash_value), by the algorithm
    C(os_hash_algo). The replaced image is deleted, or hidden (C(os_hidden)) while servers use it.
  - An image whose upload was interrupted (queued, saving, killed) is removed first.
  - An existing server is kept, whatever its image and flavor. One in ERROR that never ran is recreated, with a warning.
    One in ERROR that ran before may hold data, so the operator has to decide.
  - In check mode on a host without O(clouds_file), everything is predicted to be created. Where the host is deployed
    nevertheless, nothing is predicted (RV(not_looked_at)).
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [openstack_client]
options:
  server_timeout:
    description: Seconds for a server to become ACTIVE, or to be deleted.
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
        description: Identifier. Chosen by Nova by default.
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
        description: Whether all projects may use it.
        type: bool
        default: true
      extra_specs:
        description: All extra specs; others are removed. By default all are left alone.
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
        description: The file's sha256 as hex. A file with a different one is not uploaded.
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
        description: Who can see it.
        type: str
        default: public
        choices: [public, private, shared, community]
      min_disk:
        description: Smallest root disk in GiB.
        type: int
        default: 0
      min_ram:
        description: Smallest memory in MiB.
        type: int
        default: 0
      properties:
        description: Properties; others are left alone.
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
        description: Network type, which cannot be changed later. Chosen by Neutron by default.
        type: str
      physical_network:
        description: Neutron's name of the physical network, for the types V(flat) and V(vlan).
        type: str
      segmentation_id:
        description: VLAN or tunnel number.
        type: int
      shared:
        description: Whether all projects may use it.
        type: bool
        default: false
      external:
        description: Whether routers may use it as their external network.
        type: bool
        default: false
      port_security:
        description: Whether security groups and address checks apply on it.
        type: bool
        default: true
      mtu:
        description: MTU in bytes. 0 leaves it to Neutron.
        type: int
        default: 0
      subnets:
        description: IPv4 subnets, identified by their range.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name.
            type: str
            required: true
          cidr:
            description: Range such as C(192.168.1.0/24), which cannot be changed later.
            type: str
            required: true
          gateway:
            description: Gateway address. By default the first address of the range; V(none) for no gateway.
            type: str
            default: ""
          dhcp:
            description: Whether guests get their address by DHCP.
            type: bool
            default: true
          dns_servers:
            description: Addresses of name servers for guests.
            type: list
            elements: str
            default: []
          size:
            description: How many addresses may be used, from the first one on and with the gateway. 0 for all.
            type: int
            default: 0
          exclude:
            description: Addresses that no guest may get.
            type: list
            elements: str
            default: []
  security_group_rules:
    description: Security group rules; others are left alone. Missing groups are created.
    type: list
    elements: dict
    default: []
    suboptions:
      group:
        description: Name of the security group in the project of O(cloud).
        type: str
        default: default
      direction:
        description: Direction, as seen from the guest.
        type: str
        default: ingress
        choices: [ingress, egress]
      ethertype:
        description: Address family.
        type: str
        default: IPv4
        choices: [IPv4, IPv6]
      protocol:
        description: Protocol name, such as V(tcp), V(udp), V(icmp), or V(any).
        type: str
        required: true
      port_min:
        description: First port, or the ICMP type.
        type: int
      port_max:
        description: Last port. O(security_group_rules[].port_min) by default.
        type: int
      remote:
        description: Remote range in CIDR form. Any by default.
        type: str
  keypairs:
    description: Keypairs of the user of O(cloud). Existing servers keep the key they were created with.
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
        description: File on this host with the public key, used without O(keypairs[].public_key).
        type: path
  volume_types:
    description: Types of volumes.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name.
        type: str
        required: true
      description:
        description: Description. If omitted, any is accepted.
        type: str
      public:
        description: Whether all projects may use it.
        type: bool
        default: true
      extra_specs:
        description: >-
          All extra specs; others are removed. By default all are left alone. Cinder refuses to change those of a type
          that volumes have.
        type: dict
  volume_quotas:
    description: >-
      Limits of Cinder for projects that have none of their own, by name, such as C(volumes) and C(gigabytes). V(-1)
      stands for no limit. Those not named are left alone.
    type: dict
    default: {}
  servers:
    description: Servers in the project of O(cloud), identified by name.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name.
        type: str
        required: true
      state:
        description: V(absent) deletes it with its disk.
        type: str
        default: present
        choices: [present, absent]
      image:
        description: Name of the image to create it from. Required with V(present).
        type: str
      flavor:
        description: Name of its flavor. Required with V(present).
        type: str
      networks:
        description: Names of its networks, one interface each. Required with V(present).
        type: list
        elements: str
      host:
        description:
          - Name of the compute to create a new server on, past the scheduler (C(host) in Nova's microversion 2.74). For
            administrators only.
        type: str
      only_if_room:
        description:
          - Do not create the server where Placement has no room for its flavor on O(servers[].host), which it needs.
            The server is then in RV(without_room).
        type: bool
        default: false
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
    description: Shows each changed resource before and after.
"""

EXAMPLES = r"""
- name: Create the first guest and everything that it needs
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

- name: Create a type of volumes, and let each project have twenty
  cloud_resources:
    volume_types:
      - {name: ceph, extra_specs: {volume_backend_name: ceph}}
    volume_quotas: {volumes: 20}
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, one sentence each, in order.
  returned: always
  type: list
  elements: str
  sample: ["flavor m1.tiny: created"]
ids:
  description: Identifiers by kind (flavor, image, network, subnet, security group, volume type) and name.
  returned: always
  type: dict
  sample: {"flavor": {"m1.tiny": "1"}}
servers:
  description:
    - The named servers. Each has id, name, status, fault, host, hypervisor, instance_name, hostname, project_id,
      image_id, keypair, launched_at, flavor (name, vcpus, ram in MiB, disk in GiB) and interfaces (network, address,
      mac).
    - Without servers that check mode would create.
  returned: always
  type: list
  elements: dict
without_room:
  description: Names of the servers that were not created because of O(servers[].only_if_room).
  returned: always
  type: list
  elements: str
layer:
  description: The part of the cloud that failed, such as V(Glance) or V(Nova compute).
  returned: when an API or a server fails
  type: str
needs_you:
  description: What the operator has to resolve, one sentence each. It is not part of RV(ignore:actions).
  returned: in check mode
  type: list
  elements: str
  sample: ["The network 'nova' differs (provider:network_type is flat, wanted vlan), and Neutron cannot change that."]
not_looked_at:
  description: Why check mode could not look at a service, or at the cloud. Nothing is predicted for it.
  returned: >-
    in check mode, when a service does not answer or refuses every token, or O(clouds_file) is missing on a deployed
    host
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.cloud_resources import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
