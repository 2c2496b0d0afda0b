# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Compare a host's bridge with the wanted one, start the change with a rollback, and confirm it."""

from __future__ import annotations

import glob
import ipaddress
import json
import os
import secrets
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.network.bridge_plan import Plan, Wanted, drift, foreign, hands_over, plan
from ansible.module_utils.kilonova.network.interfaces import InterfacesError, load, parse
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
from ansible.module_utils.kilonova.system.atomic_file import replace

CLOUD_INIT_DISABLE = "/etc/cloud/cloud.cfg.d/99-kilonova-network.cfg"
CLOUD_INIT_TEXT = (
    "# Managed by Kilonova (role bridge): /etc/network/interfaces is the host's network "
    "configuration.\nnetwork: {config: disabled}\n"
)
ARGUMENT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["applied", "confirmed", "inspected"], "default": "applied"},
    "interface": {"type": "str"},
    "bridge": {"type": "str"},
    "method": {"type": "str", "choices": ["auto", "static", "dhcp", "manual"], "default": "auto"},
    "address": {"type": "str", "default": ""},
    "gateway": {"type": "str", "default": ""},
    "dns": {"type": "list", "elements": "str", "default": []},
    "mtu": {"type": "int", "default": 0},
    "gateway_address": {"type": "str", "default": ""},
    "moving_addresses": {"type": "list", "elements": "str", "default": []},
    "veth": {"type": "bool", "default": False},
    "rollback_seconds": {"type": "int", "default": 60},
    "path": {"type": "path", "default": "/etc/network/interfaces"},
    "token": {"type": "str", "default": "", "no_log": False},
}
REQUIRED_IF: list[tuple[str, str, list[str]]] = [
    ("state", "applied", ["interface", "bridge"]),
    ("state", "confirmed", ["interface", "bridge", "token"]),
]


class Refused(Exception):
    """The host's network cannot be changed this way; the message says what to do instead."""

    def __init__(self, message: str, **result: Any) -> None:
        super().__init__(message)
        self.result = result


def expand(directory: str, keyword: str, pattern: str) -> list[str]:
    """Return the files that a source or source-directory line names."""
    full = pattern if pattern.startswith("/") else f"{directory}/{pattern}"
    paths = sorted(glob.glob(full))
    if keyword == "source-directory":
        allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
        paths = [f for d in paths for f in sorted(glob.glob(f"{d}/*")) if set(os.path.basename(f)) <= allowed]
    return [path for path in paths if os.path.isfile(path)]


def links(module: AnsibleModule) -> dict[str, dict[str, Any]]:
    """Return the kernel's interfaces as bridge_plan.drift takes them."""
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
    """Return what else configures the interface with this index, or an empty string."""
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
    """Raise Refused where the network of this host cannot be changed, with what to do instead."""
    name, path = wanted.interface, module.params["path"]
    for command, package in (("ifup", "ifupdown"), ("brctl", "bridge-utils"), ("systemd-run", "systemd")):
        if module.get_bin_path(command) is None and not (module.check_mode and package == "bridge-utils"):
            raise Refused(f"{command} is missing on the host. Install the package {package}, then run again.")
    if name not in kernel:
        have = ", ".join(sorted(set(kernel) - {"lo"}))
        raise Refused(f"flat_interface = {name}: the host has no such interface. Write one of: {have}.")
    manager = other_manager(kernel[name]["index"])
    if manager:
        raise Refused(
            f"flat_interface = {name} is configured by {manager}, not by ifupdown. The two would fight over it. "
            f"Describe {name} in {path} (interfaces(5)), disable it there (for networkd: systemctl disable --now "
            "systemd-networkd, with netplan also move /etc/netplan/*.yaml away; for NetworkManager: systemctl disable "
            "--now NetworkManager), then run again."
        )
    described = any(
        block.kind == "iface" and block.names[0] in (name, wanted.bridge) and block.method not in ("manual", "")
        for text in files.values()
        for block in parse(text)
    )
    addresses = [a for link in (name, wanted.bridge) for a in kernel.get(link, {}).get("addresses", []) if ":" not in a]
    addresses = [a for a in addresses if a not in (wanted.gateway_address, *wanted.moving_addresses)]
    if wanted.method == "auto" and addresses and not described:
        raise Refused(
            f"flat_interface = {name} has the address {addresses[0]}, but {path} does not say where it comes from, so "
            f"the bridge {wanted.bridge} would lose it. Set bridge_method to static (with bridge_address: "
            f"{addresses[0]} and bridge_gateway) or to dhcp, or describe {name} in {path}."
        )


def validate(module: AnsibleModule, text: str) -> None:
    """Raise Refused where ifupdown does not accept a file."""
    with tempfile.NamedTemporaryFile("w", dir=module.tmpdir, suffix=".interfaces", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        code, _, error = module.run_command(["ifquery", "--interfaces", file.name, "--list", "--all"])
    if code:
        raise Refused(f"ifupdown does not accept the rendered {module.params['path']}: {error.strip()}", rendered=text)


def wanted_of(module: AnsibleModule) -> Wanted:
    """Return the module's options as Wanted."""
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
            "static and with no other. Set both or neither."
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
    return Wanted(**{name: p[name] for name in names}, moving_addresses=p["moving_addresses"])


def compare(module: AnsibleModule, wanted: Wanted) -> tuple[Plan, dict[str, dict[str, Any]]]:
    """Return the plan for this host and the kernel's interfaces. Raises Refused."""
    path = module.params["path"]
    try:
        files = load(path, read, lambda keyword, pattern: expand(os.path.dirname(path), keyword, pattern))
        files.setdefault(path, "auto lo\niface lo inet loopback\n")
        kernel = links(module)
        check_host(module, wanted, files, kernel)
        target = plan(files, path, wanted, kernel[wanted.interface]["mtu"])
    except InterfacesError as error:
        raise Refused(f"{error}.") from error
    by_cloud_init = any("cloud-init" in name and files[name] != target.files[name] for name in files)
    if by_cloud_init and os.path.isdir("/etc/cloud/cloud.cfg.d"):
        target.files[CLOUD_INIT_DISABLE] = CLOUD_INIT_TEXT
    return target, kernel


def present(files: dict[str, str | None]) -> dict[str, str]:
    """Return the files that exist."""
    return {name: text for name, text in files.items() if text is not None}


def applied(module: AnsibleModule) -> None:
    """Start the change where files or kernel differ."""
    wanted = wanted_of(module)
    if status()["armed"] and not module.check_mode:
        # An earlier run ended before it confirmed. Let a rollback that runs finish; replace one that waits.
        stop_units(module.run_command)
        with locked(DIRECTORY):
            pass
    armed = status()["armed"]
    target, kernel = compare(module, wanted)
    before = {name: read(name) for name in target.files}
    files: dict[str, str | None] = {name: text for name, text in target.files.items() if before[name] != text}
    reasons = [f"{name} differs" for name in files] + drift(kernel, target, wanted)
    if armed:
        reasons.append("an earlier change was not confirmed")
    result: dict[str, Any] = {"changed": bool(reasons), "reasons": reasons, "files": sorted(files)}
    result["foreign"] = foreign(kernel, target, wanted)
    if module._diff:
        result["diff"] = [
            {"before": before[name] or "", "after": text, "before_header": name, "after_header": name}
            for name, text in files.items()
        ]
    if not reasons:
        module.exit_json(**result)
    path, mtu = module.params["path"], kernel[wanted.interface]["mtu"]
    validate(module, target.files[path])
    if module.check_mode:
        module.exit_json(**result)
    if reasons == [f"{name} differs" for name in files] and hands_over(present(before), path, wanted, mtu):
        # It stays on the bridge until it moves. Nothing else differs, for which the bridge would have to go down.
        for name, text in files.items():
            replace(name, text or "", mode=0o644)
        module.exit_json(**result)
    code, out, _ = module.run_command(["ifquery", "--state"])
    # One line "eth0=eth0" for each interface that ifupdown brought up.
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
    """Return the last log lines of the change and of the rollback."""
    units = ["-u", f"{APPLY}-{token}.service", "-u", f"{TIMER}-{token}.service"]
    _, out, _ = module.run_command(["journalctl", "--no-pager", "--output=short-iso", "--lines=30", "--boot", *units])
    return out.strip()


def confirmed(module: AnsibleModule) -> None:
    """Confirm a change that was applied."""
    wanted = wanted_of(module)
    now = status()
    if not now["armed"] or now["token"] != module.params["token"]:
        module.fail_json(
            msg="There is no such change to confirm: it was undone, or another run took its place.", status=now
        )
    target, kernel = compare(module, wanted)
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
        # With DHCP, the client runs in that unit.
        module.run_command(["systemctl", "stop", f"{APPLY}-{now['token']}.service"])
    module.exit_json(changed=True, reasons=[], status=status())


def run(module: AnsibleModule) -> None:
    """Run the module."""
    module.run_command_environ_update = {"LC_ALL": "C"}
    try:
        if module.params["state"] == "inspected":
            now = status()
            module.exit_json(changed=False, status=now, log=journal(module, now["token"]))
        elif module.params["state"] == "confirmed":
            confirmed(module)
        else:
            applied(module)
    except Refused as error:
        if module.check_mode:
            module.exit_json(changed=False, reasons=[], files=[], needs_you=[str(error)])
        module.fail_json(msg=str(error), **error.result)
    except RollbackError as error:
        module.fail_json(msg=str(error))
