#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Put a Linux bridge over a network interface, with a way back that needs no operator."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: network_bridge
short_description: Put a Linux bridge over a network interface of ifupdown
version_added: "0.1.0"
description:
  - Renders /etc/network/interfaces with a bridge over an interface. The bridge takes over the interface's addresses,
    routes, name servers and MAC address. Stanzas of other interfaces keep their bytes, in that file and in those that
    it sources.
  - The change is made by the host itself, not by the ssh session, and undone by the host itself unless it is confirmed
    in time. The action plugin of the same name confirms it over a new connection; a task in a playbook sees all of that
    as one task.
  - Reads the running kernel too. A correct file with a missing bridge, port or address is a change.
options:
  state:
    description:
      - V(applied) arms the way back and starts the change where the files or the kernel differ from what is wanted.
      - V(confirmed) accepts a change that was applied; used by the action plugin.
      - V(inspected) tells where a change stands; used by the action plugin.
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
      - How the bridge gets its IPv4 address. V(auto) moves whatever the interface's stanzas say to the bridge.
      - V(static), V(dhcp) and V(manual) replace the interface's IPv4 stanzas; its IPv6 stanzas are kept.
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
    description: MTU in bytes of the bridge, its ports and the veth pair; V(0) keeps the interface's.
    type: int
    default: 0
  gateway_address:
    description: A further IPv4 address with prefix length for the bridge, the gateway of the guests. Empty for none.
    type: str
    default: ""
  veth:
    description: Whether a veth pair <bridge>-ovs and ovs-<bridge> joins the bridge to Open vSwitch.
    type: bool
    default: false
  rollback_seconds:
    description: Seconds after which an unconfirmed change is undone.
    type: int
    default: 60
  path:
    description: Main configuration file of ifupdown.
    type: path
    default: /etc/network/interfaces
  token:
    description: Which change to confirm; a result of O(state=applied).
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Nothing is written or started.
  diff_mode:
    support: full
    description: Shows every file that changes.
notes:
  - Needs root, systemd, ifupdown and bridge-utils on the host.
  - >-
    Fails before any change where systemd-networkd or NetworkManager configures the interface, where the interface has
    an address that no file of ifupdown explains, where ifupdown does not accept the rendered file, and where the bridge
    exists with other ports.
  - >-
    Relied on: interfaces(5); bridge-utils-interfaces(5), whose script /usr/lib/bridge-utils/ifupdown.sh resolves an
    interface name in bridge_hw; systemd-run(1).
author:
  - The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Put br0 over eth0, with whatever addresses eth0 has
  network_bridge:
    interface: eth0
    bridge: br0
    veth: true
    gateway_address: 192.168.1.1/24

- name: Give br0 another address
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
  description: Why something changed, in words.
  returned: with state applied and confirmed
  type: list
  elements: str
  sample: ["/etc/network/interfaces differs", "br0 does not exist"]
files:
  description: Files that were or would be changed.
  returned: with state applied
  type: list
  elements: str
token:
  description: Names the change to confirm.
  returned: with state applied, when something changed
  type: str
status:
  description: Where the last change stands. C(undone) is how it was undone (timer, boot), or empty.
  returned: with state inspected and confirmed
  type: dict
  sample: {token: a1b2c3, armed: true, applied: true, undone: ""}
log:
  description: Last journal lines of the change and of the way back.
  returned: with state inspected
  type: str
"""

import glob
import ipaddress
import json
import os
import secrets
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.network.interfaces import InterfacesError, Plan, Wanted, drift, load, parse, plan
from ansible.module_utils.kilonova.network.rollback import (
    APPLY,
    DIRECTORY,
    TIMER,
    Change,
    RollbackError,
    disarm,
    locked,
    read,
    save,
    start,
    status,
    stop_units,
)

CLOUD_INIT_DISABLE = "/etc/cloud/cloud.cfg.d/99-kilonova-network.cfg"
CLOUD_INIT_TEXT = (
    "# Managed by Kilonova (role bridge): /etc/network/interfaces is the host's network "
    "configuration.\nnetwork: {config: disabled}\n"
)
ARGUMENTS: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["applied", "confirmed", "inspected"], "default": "applied"},
    "interface": {"type": "str"},
    "bridge": {"type": "str"},
    "method": {"type": "str", "choices": ["auto", "static", "dhcp", "manual"], "default": "auto"},
    "address": {"type": "str", "default": ""},
    "gateway": {"type": "str", "default": ""},
    "dns": {"type": "list", "elements": "str", "default": []},
    "mtu": {"type": "int", "default": 0},
    "gateway_address": {"type": "str", "default": ""},
    "veth": {"type": "bool", "default": False},
    "rollback_seconds": {"type": "int", "default": 60},
    "path": {"type": "path", "default": "/etc/network/interfaces"},
    "token": {"type": "str", "default": "", "no_log": False},
}


def expand(directory: str, keyword: str, pattern: str) -> list[str]:
    """The files that a source or source-directory line of interfaces(5) names."""
    full = pattern if pattern.startswith("/") else f"{directory}/{pattern}"
    paths = sorted(glob.glob(full))
    if keyword == "source-directory":
        allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
        paths = [f for d in paths for f in sorted(glob.glob(f"{d}/*")) if set(os.path.basename(f)) <= allowed]
    return [path for path in paths if os.path.isfile(path)]


def links(module: AnsibleModule) -> dict[str, dict[str, Any]]:
    """The running kernel's interfaces, see interfaces.drift."""
    code, out, error = module.run_command(["ip", "-json", "-details", "address", "show"])
    if code:
        module.fail_json(msg=f"ip could not list the interfaces: {error.strip()}")
    found: dict[str, dict[str, Any]] = {}
    entries = json.loads(out)
    for link in entries:
        info = link.get("linkinfo", {})
        found[link["ifname"]] = {
            "index": link["ifindex"],
            "kind": info.get("info_kind", ""),
            "stp": info.get("info_data", {}).get("stp_state", 0),
            "mtu": link["mtu"],
            "mac": link.get("address", ""),
            "up": "UP" in link["flags"],
            "ports": [other["ifname"] for other in entries if other.get("master") == link["ifname"]],
            "addresses": [
                f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["scope"] == "global" and "local" in a
            ],
        }
    return found


def other_manager(index: int, root: str = "/") -> str:
    """Who else configures the interface with this index, with the file it reads, or an empty string."""
    link = dict(
        line.split("=", 1)
        for line in (read(f"{root}run/systemd/netif/links/{index}") or "").splitlines()
        if "=" in line
    )
    if link.get("ADMIN_STATE") in ("configuring", "configured") and link.get("NETWORK_FILE"):
        return f"systemd-networkd ({link['NETWORK_FILE']})"
    if "managed=true" in (read(f"{root}run/NetworkManager/devices/{index}") or ""):
        return "NetworkManager"
    return ""


def check_host(module: AnsibleModule, wanted: Wanted, files: dict[str, str], kernel: dict[str, dict[str, Any]]) -> None:
    """Fail where this host's network cannot be changed this way, with what to do instead."""
    name = wanted.interface
    for command, package in (("ifup", "ifupdown"), ("brctl", "bridge-utils"), ("systemd-run", "systemd")):
        if module.get_bin_path(command) is None and not (module.check_mode and package == "bridge-utils"):
            module.fail_json(msg=f"{command} is missing on the host. Install the package {package}, then run again.")
    if name not in kernel:
        have = ", ".join(sorted(set(kernel) - {"lo"}))
        module.fail_json(msg=f"flat_interface = {name}: the host has no such interface. Write one of: {have}.")
    manager = other_manager(kernel[name]["index"])
    if manager:
        module.fail_json(
            msg=f"flat_interface = {name} is configured by {manager}, not by ifupdown. The two would fight over it. "
            f"Describe {name} in "
            f"{module.params['path']} (interfaces(5)), disable it there (for networkd: systemctl disable --now "
            "systemd-networkd, with netplan "
            "also move /etc/netplan/*.yaml away; for NetworkManager: systemctl disable --now NetworkManager), then run "
            "again."
        )
    described = any(
        block.kind == "iface" and block.names[0] in (name, wanted.bridge) and block.method not in ("manual", "")
        for text in files.values()
        for block in parse(text)
    )
    addresses = [a for link in (name, wanted.bridge) for a in kernel.get(link, {}).get("addresses", []) if ":" not in a]
    addresses = [a for a in addresses if a != wanted.gateway_address]
    if wanted.method == "auto" and addresses and not described:
        module.fail_json(
            msg=f"flat_interface = {name} has the address {addresses[0]}, but {module.params['path']} does not say "
            "where it comes from, so "
            f"the bridge {wanted.bridge} would lose it. Set bridge_method to static (with bridge_address: "
            f"{addresses[0]} and bridge_gateway) or "
            f"to dhcp, or describe {name} in {module.params['path']}."
        )


def validate(module: AnsibleModule, text: str) -> None:
    """Have ifupdown itself read the file before anything is armed."""
    with tempfile.NamedTemporaryFile("w", dir=module.tmpdir, suffix=".interfaces", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        code, _, error = module.run_command(["ifquery", "--interfaces", file.name, "--list", "--all"])
    if code:
        module.fail_json(
            msg=f"ifupdown does not accept the rendered {module.params['path']}: {error.strip()}", rendered=text
        )


def wanted_of(module: AnsibleModule) -> Wanted:
    """The module's options as Wanted."""
    p = module.params
    limit = 11 if p["veth"] else 15
    if len(p["bridge"]) > limit:
        module.fail_json(
            msg=f"bridge = {p['bridge']}: at most {limit} characters, names of interfaces have at most 15. Shorten "
            "flat_network_bridge."
        )
    if (p["method"] == "static") != bool(p["address"]):
        module.fail_json(
            msg=f"bridge_method = {p['method']}, bridge_address = {p['address']!r}: an address goes with the method "
            "static and with no other. "
            "Set both or neither."
        )
    for option in ("address", "gateway_address"):
        try:
            if p[option]:
                p[option] = ipaddress.IPv4Interface(p[option]).with_prefixlen
        except ValueError as error:
            module.fail_json(
                msg=f"{option} = {p[option]}: {error}. Write an IPv4 address with prefix length, such as 10.0.0.2/24."
            )
    names = ("interface", "bridge", "method", "address", "gateway", "dns", "mtu", "gateway_address", "veth")
    return Wanted(**{name: p[name] for name in names})


def look(module: AnsibleModule, wanted: Wanted) -> tuple[dict[str, str], Plan, dict[str, dict[str, Any]]]:
    """The files as they are, the plan, and the kernel."""
    path = module.params["path"]
    try:
        files = load(path, read, lambda keyword, pattern: expand(os.path.dirname(path), keyword, pattern))
        files.setdefault(path, "auto lo\niface lo inet loopback\n")
        kernel = links(module)
        check_host(module, wanted, files, kernel)
        target = plan(files, path, wanted, kernel[wanted.interface]["mtu"])
    except InterfacesError as error:
        module.fail_json(msg=f"{error}.")
    if any("cloud-init" in name and files[name] != target.files[name] for name in files) and os.path.isdir(
        "/etc/cloud/cloud.cfg.d"
    ):
        target.files[CLOUD_INIT_DISABLE] = CLOUD_INIT_TEXT
    return files, target, kernel


def applied(module: AnsibleModule) -> None:
    """state=applied."""
    wanted = wanted_of(module)
    if status()["armed"] and not module.check_mode:
        # A run died before it confirmed. The way back may be under way: let it finish, or take its place.
        stop_units(module.run_command)
        with locked(DIRECTORY):
            pass
    armed = status()["armed"]
    _, target, kernel = look(module, wanted)
    path = module.params["path"]
    before = {name: read(name) for name in target.files}
    files: dict[str, str | None] = {name: text for name, text in target.files.items() if before[name] != text}
    reasons = [f"{name} differs" for name in files] + drift(kernel, target, wanted)
    if armed:
        reasons.append("an earlier change was not confirmed")
    result: dict[str, Any] = {"changed": bool(reasons), "reasons": reasons, "files": sorted(files)}
    if module._diff:
        result["diff"] = [
            {"before": before[name] or "", "after": text, "before_header": name, "after_header": name}
            for name, text in files.items()
        ]
    if not reasons:
        module.exit_json(**result)
    validate(module, target.files[path])
    if module.check_mode:
        module.exit_json(**result)
    code, out, _ = module.run_command(["ifquery", "--state"])
    # "eth0=eth0" per line; without a line the interface was not brought up by ifupdown.
    running = [line.partition("=")[0] for line in out.splitlines()] if code == 0 else []
    change = Change(
        token=secrets.token_hex(6),
        seconds=module.params["rollback_seconds"],
        files=files,
        interface=wanted.interface,
        down=[name for name in reversed(target.up) if name in running or name == wanted.bridge and name in kernel],
        up=target.up,
        restore=[name for name in target.up if name in running] or [wanted.interface],
        remove_links=[name for name in (wanted.veth_bridge, wanted.bridge) if name not in kernel],
    )
    save(change)
    start(change, module.run_command)
    module.exit_json(token=change.token, **result)


def journal(module: AnsibleModule, token: str) -> str:
    """The last lines of the change and of the way back."""
    units = ["-u", f"{APPLY}-{token}.service", "-u", f"{TIMER}-{token}.service"]
    _, out, _ = module.run_command(["journalctl", "--no-pager", "--output=short-iso", "--lines=30", "--boot", *units])
    return out.strip()


def confirmed(module: AnsibleModule) -> None:
    """state=confirmed."""
    wanted = wanted_of(module)
    now = status()
    if not now["armed"] or now["token"] != module.params["token"]:
        module.fail_json(
            msg="There is no such change to confirm: it was undone, or another run took its place.", status=now
        )
    _, target, kernel = look(module, wanted)
    reasons = drift(kernel, target, wanted)
    if reasons or not now["applied"]:
        module.fail_json(
            msg="The new network configuration is not in effect: "
            + "; ".join(reasons or ["the change has not finished"]),
            status=now,
            log=journal(module, now["token"]),
        )
    if module.check_mode:
        module.exit_json(changed=True, reasons=[], status=now)
    with locked(DIRECTORY):
        if not status()["armed"]:
            module.fail_json(msg="The change was undone while it was being confirmed.", status=status())
        disarm()
    stop_units(module.run_command)
    if not target.dhcp:
        # With DHCP the client lives in that unit.
        module.run_command(["systemctl", "stop", f"{APPLY}-{now['token']}.service"])
    module.exit_json(changed=True, reasons=[], status=status())


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
        required_if=[
            ("state", "applied", ["interface", "bridge"]),
            ("state", "confirmed", ["interface", "bridge", "token"]),
        ],
    )
    module.run_command_environ_update = {"LC_ALL": "C"}
    try:
        if module.params["state"] == "inspected":
            now = status()
            module.exit_json(changed=False, status=now, log=journal(module, now["token"]))
        elif module.params["state"] == "confirmed":
            confirmed(module)
        else:
            applied(module)
    except RollbackError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
