# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of a guest: the script that runs in it, and what ping, ssh and its console mean. Used by guest_probe."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass

SSH_CONNECT_SECONDS = 10
OUTSIDE_SECONDS = 10
OUTSIDE_TRIES = 3
MARK = "kilonova-probe"
HOST_KEY = re.compile(r"\b(ssh-ed25519|ecdsa-sha2-nistp\d+|ssh-rsa) (AAAA[A-Za-z0-9+/]+=*)")


class ProbeError(Exception):
    """A check failed. ``layer`` is the part of the cloud that failed."""

    def __init__(self, layer: str, message: str) -> None:
        super().__init__(message)
        self.layer = layer


# Console and route


def host_keys(console: str, address: str) -> list[str]:
    """Return the known_hosts lines of the host keys on a guest's console."""
    found = dict.fromkeys(match.groups() for match in HOST_KEY.finditer(console))
    return [f"{address} {kind} {key}" for kind, key in found]


def address_on(console: str, address: str) -> bool:
    """Return whether the text contains the address, not only a longer one that includes it."""
    return bool(re.search(rf"(?<![\d.]){re.escape(address)}(?!\d|\.\d)", console))


def route_interface(answer: str) -> str:
    """Return the interface in the output of ``ip -json route get``, or an empty string."""
    try:
        routes = json.loads(answer)
        return str(routes[0].get("dev", "")) if routes else ""
    except (ValueError, AttributeError, IndexError):
        return ""


def unreachable(console: str, address: str, interface: str, timeout: int) -> ProbeError:
    """Explain from its console why a guest does not answer a ping."""
    if not console.strip():
        return ProbeError("guest", f"nothing is on the guest's console and {address} does not answer; it did not boot")
    if not address_on(console, address):
        return ProbeError(
            "guest DHCP", f"the guest does not have its address {address} after {timeout} s: no lease on its console"
        )
    return ProbeError(
        "OVN", f"the guest has its lease, but {address} does not answer a ping through {interface} for {timeout} s"
    )


# Login


def ssh_command(login: str, private_key: str, known_hosts: str, strict: bool) -> list[str]:
    """Return the ssh command. Unless ``strict``, an unknown host key is accepted."""
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": str(SSH_CONNECT_SECONDS),
        "GlobalKnownHostsFile": "/dev/null",
        "IdentitiesOnly": "yes",
        "LogLevel": "ERROR",
        "PreferredAuthentications": "publickey",
        "StrictHostKeyChecking": "yes" if strict else "accept-new",
        "UserKnownHostsFile": known_hosts,
    }
    command = ["ssh", "-F", "none", "-T", "-i", private_key]
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    return [*command, login]


def login_problem(message: str) -> tuple[str, str]:
    """Return the layer and the explanation of an error message of ssh."""
    if "Host key verification failed" in message or "HOST IDENTIFICATION HAS CHANGED" in message:
        return (
            "guest",
            "another host than the guest answers at its address: its ssh host key is not that on the console",
        )
    if "Permission denied" in message:
        return (
            "guest metadata",
            "the guest does not accept the key; it gets it from the metadata service at its first boot",
        )
    if "timed out" in message or "No route to host" in message:
        return "OVN", (
            "the guest answers a ping but no TCP connection; see the security group's rules and, with Open vSwitch's "
            "userspace datapath, its checksum offloading (other_config:userspace-tso-enable)"
        )
    return "guest", "the guest's ssh server does not answer"


# The way out


@dataclass
class Outside:
    """The outside address to connect to. ``peers`` are the addresses that it may see as the guest's."""

    address: str
    port: int
    token: str
    peers: list[str]


def guest_script(outside: Outside | None) -> str:
    """Return the script to run in the guest. Each of its answers is a line ``kilonova-probe NAME VALUE``."""
    lines = [f'echo "{MARK} hostname $(hostname)"']
    if outside:
        target = f"{shlex.quote(outside.address)} {outside.port}"
        device = f"/dev/tcp/{outside.address}/{outside.port}"
        if outside.token:
            ask = f"echo {shlex.quote(outside.token)} | nc -w {OUTSIDE_SECONDS} {target}"
            bash = f"exec 3<>{device}; echo {outside.token} >&3; timeout {OUTSIDE_SECONDS} cat <&3"
        else:
            ask = f"nc -w {OUTSIDE_SECONDS} {target} </dev/null >/dev/null && echo connected"
            bash = f"exec 3<>{device} && echo connected"
        lines += [
            "ask() {",
            f"if command -v nc >/dev/null; then {ask}; else bash -c {shlex.quote(bash)}; fi",
            "}",
            f"for try in {' '.join(str(number + 1) for number in range(OUTSIDE_TRIES))}; do",
            "answer=$(ask 2>&1); case $answer in peer\\ *|connected) break;; esac; sleep 1",
            "done",
            f'echo "{MARK} outside $answer"',
        ]
    return "\n".join(lines)


def answers(output: str) -> dict[str, str]:
    """Return the answers in the output of guest_script."""
    found = re.findall(rf"^{MARK} (\w+) ?(.*)$", output, re.MULTILINE)
    return {name: value.strip() for name, value in found}


def check_outside(outside: Outside, answer: str) -> str:
    """Return the peer address that the outside saw; empty where it does not tell."""
    where = f"{outside.address}:{outside.port}"
    if not outside.token:
        if answer != "connected":
            raise ProbeError("SNAT", f"the guest does not reach {where}: {answer or 'no connection'}")
        return ""
    word, _, peer = answer.partition(" ")
    if word != "peer":
        raise ProbeError("SNAT", f"the guest does not reach the listener at {where}: {answer or 'no connection'}")
    if outside.peers and peer not in outside.peers:
        raise ProbeError(
            "SNAT",
            f"the guest reaches {where}, but is seen there as {peer} and not as {' or '.join(outside.peers)}: its "
            "address is not translated as it should be",
        )
    return peer
