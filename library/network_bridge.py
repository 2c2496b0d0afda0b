#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Put a Linux bridge over a network interface, with automatic rollback."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: network_bridge
short_description: Put a Linux bridge over a network interface of ifupdown
version_added: "0.1.0"
description:
  - Renders /etc/network/interfaces with a bridge over an interface. The bridge takes over the addresses, routes, name
    servers and MAC address of the interface. Stanzas of other interfaces keep their bytes, in that file and in those
    that it sources.
  - The host makes the change in the background and undoes it unless it is confirmed in time. The action plugin of the
    same name confirms it over a new connection; in a playbook, all of that is one task.
  - Compares the running kernel too. A correct file with a missing bridge, port or address is a change.
options:
  state:
    description:
      - V(applied) arms the rollback and starts the change where files or kernel differ.
      - V(confirmed) accepts a change that was applied; used by the action plugin.
      - V(inspected) returns the state of a change; used by the action plugin.
    type: str
    choices: [applied, confirmed, inspected]
    default: applied
  interface:
    description: Interface that becomes a port of the bridge. Required for V(applied) and V(confirmed).
    type: str
  bridge:
    description: Name of the bridge, at most 11 characters with O(veth), otherwise 15. Required for V(applied) and
      V(confirmed).
    type: str
  method:
    description:
      - How the bridge gets an IPv4 address. V(auto) moves the addressing of the interface to the bridge.
      - V(static), V(dhcp) and V(manual) replace the IPv4 stanzas of the interface; IPv6 stanzas are kept.
    type: str
    choices: [auto, static, dhcp, manual]
    default: auto
  address:
    description: IPv4 address with prefix length. Required with O(method=static), refused otherwise.
    type: str
    default: ""
  gateway:
    description: IPv4 default gateway for O(method=static).
    type: str
    default: ""
  dns:
    description: Name servers for O(method=static).
    type: list
    elements: str
    default: []
  mtu:
    description: MTU in bytes of the bridge, its ports and the veth pair; V(0) keeps that of the interface.
    type: int
    default: 0
  gateway_address:
    description: Additional IPv4 address with prefix length of the bridge, the gateway of the guests. Empty for none.
    type: str
    default: ""
  moving_addresses:
    description:
      - IPv4 addresses with prefix length that the bridge may have or not, as something else decides, such as those that
        keepalived gives to one of several hosts. They are left as they are. Where the files differ only in that one of
        them was the O(gateway_address), they are written, and the bridge stays up.
    type: list
    elements: str
    default: []
  veth:
    description: Whether a veth pair <bridge>-ovs and ovs-<bridge> joins the bridge to Open vSwitch.
    type: bool
    default: false
  rollback_seconds:
    description: Seconds until an unconfirmed change is undone.
    type: int
    default: 60
  path:
    description: Main configuration file of ifupdown.
    type: path
    default: /etc/network/interfaces
  token:
    description: The change to confirm; returned by O(state=applied).
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Writes and starts nothing. Reports in RV(needs_you) what would make the module fail on this host.
  diff_mode:
    support: full
    description: Shows every file that changes.
notes:
  - Needs root, systemd, ifupdown and bridge-utils on the host.
  - >-
    Fails before any change if systemd-networkd or NetworkManager configures the interface, if the interface has an
    address that is in no file of ifupdown, if ifupdown does not accept the rendered file, or if the bridge exists with
    other ports.
  - >-
    Relies on interfaces(5), systemd-run(1) and bridge-utils-interfaces(5), whose script
    /usr/lib/bridge-utils/ifupdown.sh resolves an interface name in bridge_hw.
author:
  - The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Put br0 over eth0 and move the addresses of eth0
  network_bridge:
    interface: eth0
    bridge: br0
    veth: true
    gateway_address: 192.168.1.1/24

- name: Set a static address
  network_bridge:
    interface: eth0
    bridge: br0
    method: static
    address: 10.0.0.5/24
    gateway: 10.0.0.1
    rollback_seconds: 120
"""

RETURN = r"""
reasons:
  description: Why something changed.
  returned: with state applied and confirmed
  type: list
  elements: str
  sample: ["/etc/network/interfaces differs", "br0 does not exist"]
foreign:
  description:
    - IPv4 addresses (not with DHCP) and ports of the bridge that neither an option nor O(path) describes. They stay.
  returned: with state applied
  type: list
  elements: str
  sample: ["br0: address 192.0.2.9/24"]
needs_you:
  description: Why the network of this host cannot be changed, with what to do.
  returned: in check mode, when the module would fail
  type: list
  elements: str
files:
  description: Files that change.
  returned: with state applied
  type: list
  elements: str
token:
  description: Identifies the change to confirm.
  returned: with state applied, when something changed
  type: str
status:
  description: State of the last change. C(undone) is how it was undone (timer, boot), or empty.
  returned: with state inspected and confirmed
  type: dict
  sample: {token: a1b2c3, armed: true, applied: true, undone: ""}
log:
  description: Last log lines of the change and of the rollback.
  returned: with state inspected
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.network.bridge import ARGUMENT_SPEC, REQUIRED_IF, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, required_if=REQUIRED_IF, supports_check_mode=True))


if __name__ == "__main__":
    main()
