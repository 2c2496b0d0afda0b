#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: look at a cloud, and at a guest from its gateway: lease, ping, ssh, metadata, the way out."""

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_probe
short_description: See whether a cloud is healthy, and a guest of it answers, lets its user in and reaches the outside
version_added: "0.1.0"
description:
  - Runs on a host that has an address on the guest's network, such as the one that is its gateway.
  - Looks at the cloud as M(cloud_health) does, with the guest as its server, and at the guest meanwhile. Where the
    cloud is not healthy, that is what the module fails with, whatever the guest did. Where it became healthy while this
    module waited for it, a guest that did not pass before is looked at again.
  - In order, it waits for the guest's address to answer a ping through O(interface); looks for the address in the
    guest's console log, which Nova keeps; logs in over ssh with O(private_key); compares the host name that the guest
    has from the metadata service; and lets the guest open a TCP connection to the outside.
  - OVN answers DHCP itself and keeps no file of leases. That the guest uses the address which Neutron chose for it is
    the proof of its lease; when it does not, its console log tells whether it was the lease or the way to the guest.
  - The guest's ssh host key is compared with those in its console log, where the guest prints them. Otherwise the
    key that it shows is taken, and RV(host_key) says so.
  - An action plugin of the same name opens a listener on the control computer for O(outside_listen).
  - Changes nothing.
author: The Kilonova authors (@kilonova)
extends_documentation_fragment: [openstack_client, read_only]
options:
  server:
    description: Name of the server, in the project of O(cloud).
    type: str
    required: true
  computes:
    description: Names, as Nova knows them, of the hosts that have to be up as hypervisors.
    type: list
    elements: str
    default: []
  images:
    description: Names of images that have to be active.
    type: list
    elements: str
    default: []
  cloud_timeout:
    description: Seconds to wait until the cloud is healthy.
    type: int
    default: 60
  interface:
    description: Interface of this host that the guest must be reached through.
    type: str
    required: true
  user:
    description: User to log in as.
    type: str
    required: true
  private_key:
    description: File on this host with the private key.
    type: path
    required: true
  outside_address:
    description: IPv4 address outside that the guest must reach over TCP. Empty to leave it out.
    type: str
    default: ""
  outside_port:
    description: TCP port there.
    type: int
    default: 0
  outside_token:
    description: Text that the guest sends there and that the other side answers with the peer address it sees.
    type: str
    default: ""
  outside_listen:
    description: >-
      Address of the control computer on which to listen for the guest. The action plugin then sets
      O(outside_address), O(outside_port) and O(outside_token).
    type: str
    default: ""
  outside_peers:
    description: >-
      Addresses one of which the other side must see as the peer, for the guest's own to be translated. Empty to accept
      any. It counts only with O(outside_listen).
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds for the guest to answer the ping, and again for it to let its user in.
    type: int
    default: 120
  consoles:
    description:
      - Which of the guest's consoles to open while it is looked at. Without it, none.
      - Asks Nova for a console address (API C(POST /servers/ID/remote-consoles), microversion 2.6 and later) and uses
        it as a browser does, with an C(Origin) header and the WebSocket subprotocol C(binary).
      - For C(novnc) the page has to come and to be noVNC's, and the WebSocket has to lead into a VNC session (RFC 6143)
        up to the screen's name. For C(serial) a line feed typed into the WebSocket has to yield some text.
      - A token that was never issued must lead nowhere. With C(database_socket), neither must the token that worked a
        moment before, once its row in C(console_auth_tokens) says that it expired. Nova's proxies accept tokens whose
        C(expires) is in the future (nova/objects/console_auth_token.py); setting the row back does what waiting
        C([consoleauth]token_ttl) does. Only the row of this call's own token is touched, and it is useless afterwards.
      - The tokens appear neither in the result nor in messages.
    type: dict
    suboptions:
      types:
        description: Consoles to look at.
        type: list
        elements: str
        default: [novnc]
        choices: [novnc, serial]
      timeout:
        description: Seconds for each console to answer.
        type: int
        default: 20
      ca_file:
        description: Authority that signed the consoles' certificates, for https addresses.
        type: path
      database_socket:
        description: MariaDB's Unix socket on this host, to see that an expired token is refused. Empty to leave it out.
        type: str
        default: ""
      database:
        description: Name of the cell database that holds the tokens.
        type: str
        default: nova
requirements:
  - ping, ip and ssh on the host
  - nc, or bash, in the guest for the way out
  - python3-pymysql on the host, for C(database_socket) of O(consoles)
"""

EXAMPLES = r"""
- name: Look at the cloud and its guest
  guest_probe:
    server: my_vm
    computes: [node1, node2]
    images: [debian-tiny]
    interface: br0
    user: debian
    private_key: /root/.ssh/kilonova_id_ed25519
    outside_listen: 10.77.0.1
    outside_peers: [10.77.0.2]
    consoles:
      types: [novnc, serial]
      database_socket: /run/mysqld/mysqld.sock
"""

RETURN = r"""
server:
  description: The guest, in the shape of an element of RV(servers).
  returned: success, and failure of the guest in a healthy cloud
  type: dict
services:
  description: As M(cloud_health) returns them; so are RV(agents), RV(hypervisors), RV(images) and RV(servers).
  returned: success
  type: list
  elements: dict
agents:
  description: See RV(services).
  returned: success
  type: list
  elements: dict
hypervisors:
  description: See RV(services).
  returned: success
  type: list
  elements: dict
images:
  description: See RV(services).
  returned: success
  type: list
  elements: dict
servers:
  description: See RV(services).
  returned: success
  type: list
  elements: dict
address:
  description: The guest's address, which answered.
  returned: success
  type: str
lease_on_console:
  description: Whether the console log shows the address.
  returned: success
  type: bool
hostname:
  description: The guest's host name.
  returned: success
  type: str
host_key:
  description: >-
    V(console) when the ssh host key was compared with the console log, V(first seen) when there was none in it.
  returned: success
  type: str
outside_peer:
  description: The address that the outside saw; empty where it was not asked.
  returned: success
  type: str
consoles:
  description:
    - What was seen of the consoles, by type; empty without O(consoles). All have address (without the token),
      wrong_token_refused and, with C(database_socket), expired_token_refused.
    - C(novnc) also has version, width, height (pixels) and name of the screen; C(serial) also has text, the end of what
      the guest said.
  returned: success
  type: dict
  sample:
    novnc: {address: "http://10.0.0.2:6080/vnc_auto.html", version: "003.008", width: 720, height: 400,
            name: "QEMU (instance-00000001)", wrong_token_refused: true, expired_token_refused: true}
layer:
  description: The part of the cloud that failed; of several, the first.
  returned: failure
  type: str
problems:
  description: As M(cloud_health) returns them.
  returned: failure of the cloud
  type: list
  elements: dict
"""

import json
import os
import re
import shlex
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.api import CloudApi, CloudError, answered, console_log, layer_logs, tail
from ansible.module_utils.kilonova.cloud.client import CLIENT_ARGUMENTS, connect
from ansible.module_utils.kilonova.cloud.health import Unhealthy, healthy, read_servers
from ansible.module_utils.kilonova.consoles.probe import CONSOLE_ARGUMENTS, ConsoleError, probe_all
from ansible.module_utils.kilonova.system.background import Background

POLL_SECONDS = 0.5
CONSOLE_LINES = 25
SSH_CONNECT_SECONDS = 10
OUTSIDE_SECONDS = 10
OUTSIDE_TRIES = 3
MARK = "kilonova-probe"
HOST_KEY = re.compile(r"\b(ssh-ed25519|ecdsa-sha2-nistp\d+|ssh-rsa) (AAAA[A-Za-z0-9+/]+=*)")
SSH_FAILED = 255


class ProbeError(Exception):
    """A check failed; ``layer`` is a key of LAYER_UNITS in module_utils/kilonova/cloud/api.py."""

    def __init__(self, layer: str, message: str) -> None:
        super().__init__(message)
        self.layer = layer


@dataclass
class Outside:
    """Where the guest shall connect to; ``peers`` are the addresses that it may be seen with."""

    address: str
    port: int
    token: str
    peers: list[str]


def host_keys(console: str, address: str) -> list[str]:
    """The known_hosts lines for the host keys that a guest printed on its console."""
    found = dict.fromkeys(match.groups() for match in HOST_KEY.finditer(console))
    return [f"{address} {kind} {key}" for kind, key in found]


def address_on(console: str, address: str) -> bool:
    """Whether the address, not a longer one that contains it, is in the text."""
    return bool(re.search(rf"(?<![\d.]){re.escape(address)}(?!\d|\.\d)", console))


def route_interface(answer: str) -> str:
    """The interface in the answer of ``ip -json route get``; empty where there is no route."""
    try:
        routes = json.loads(answer)
        return str(routes[0].get("dev", "")) if routes else ""
    except (ValueError, AttributeError, IndexError):
        return ""


def guest_script(outside: Outside | None) -> str:
    """What is run in the guest; each answer is a line ``kilonova-probe NAME VALUE``."""
    lines = [f'echo "{MARK} hostname $(hostname)"']
    if outside:
        target = f"{shlex.quote(outside.address)} {outside.port}"
        if outside.token:
            ask = f"echo {shlex.quote(outside.token)} | nc -w {OUTSIDE_SECONDS} {target}"
            device = f"/dev/tcp/{outside.address}/{outside.port}"
            bash = f"exec 3<>{device}; echo {outside.token} >&3; timeout {OUTSIDE_SECONDS} cat <&3"
        else:
            ask = f"nc -w {OUTSIDE_SECONDS} {target} </dev/null >/dev/null && echo connected"
            bash = f"exec 3<>/dev/tcp/{outside.address}/{outside.port} && echo connected"
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
    """The answers of guest_script."""
    found = re.findall(rf"^{MARK} (\w+) ?(.*)$", output, re.MULTILINE)
    return {name: value.strip() for name, value in found}


def check_outside(outside: Outside, answer: str) -> str:
    """The peer that the outside saw, empty where it does not tell. ProbeError where the guest did not get there."""
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


def login_problem(message: str) -> tuple[str, str]:
    """Layer and explanation of what ssh says."""
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
            "the guest answers a ping, but no TCP connection to it comes about; see the security group's rules and, "
            "with Open vSwitch's userspace datapath, its checksum offloading (other_config:userspace-tso-enable)"
        )
    return "guest", "the guest's ssh server does not answer"


class Probe:
    def __init__(self, module: AnsibleModule, api: CloudApi) -> None:
        self.module = module
        self.api = api
        self.params: dict[str, Any] = module.params
        self.server: dict[str, Any] = {}
        self.address = ""
        self.last_console = ""
        self._hiding = threading.Lock()

    def find(self) -> None:
        """Get to know the guest. What is said of one that is not there, the look at the cloud says as well."""
        name = self.params["server"]
        self.server = next((one for one in read_servers(self.api) if one["name"] == name), {})
        if not self.server:
            raise ProbeError("Nova API", f"there is no server '{name}' in the project")
        if not self.server["interfaces"]:
            raise ProbeError("Neutron", f"the server '{name}' has no address")
        self.address = self.server["interfaces"][0]["address"]

    def hide(self, token: str) -> None:
        """Keep a console's token out of the result. Whoever reads the values meanwhile reads those of before."""
        with self._hiding:
            self.module.no_log_values = {*self.module.no_log_values, token}

    def console(self) -> str:
        self.last_console = answered(lambda: console_log(self.api, self.server["id"]), self.params["timeout"])
        return self.last_console

    def until(self, condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + self.params["timeout"]
        while not condition():
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def reach(self) -> None:
        """The address answers through the interface."""
        address, interface, timeout = self.address, self.params["interface"], self.params["timeout"]
        command = ["ping", "-n", "-q", "-c", "1", "-W", "1", "-I", interface, address]
        if not self.until(lambda: self.module.run_command(command)[0] == 0):
            console = self.console()
            if not console.strip():
                raise ProbeError(
                    "guest", f"nothing is on the guest's console and {address} does not answer; it did not boot"
                )
            if not address_on(console, address):
                raise ProbeError(
                    "guest DHCP",
                    f"the guest does not have its address {address} after {timeout} s: no lease on its console",
                )
            raise ProbeError(
                "OVN",
                f"the guest has its lease, but {address} does not answer a ping through {interface} for {timeout} s",
            )
        used = route_interface(self.module.run_command(["ip", "-json", "route", "get", address])[1])
        if used != interface:
            raise ProbeError("OVN", f"{address} is reached through '{used}', not through {interface}")

    def see_consoles(self) -> dict[str, Any]:
        wanted = self.params["consoles"]
        return probe_all(self.api, self.server["id"], wanted, self.hide) if wanted else {}

    def log_in(self, outside: Outside | None) -> tuple[dict[str, str], str]:
        """The guest's answers, and how its host key was recognised."""
        output, problem = "", ""
        # Ansible removes its own directory even where nobody waits for this thread.
        with tempfile.TemporaryDirectory(dir=self.module.tmpdir) as directory:
            known_hosts = os.path.join(directory, "known_hosts")
            keys: list[str] = []

            def attempt() -> bool:
                nonlocal output, problem, keys
                # Read again each time: a guest may print its keys only after it has its address.
                keys = host_keys(self.console(), self.address)
                if keys:
                    with open(known_hosts, "w", encoding="utf-8") as stream:
                        stream.write("\n".join(keys) + "\n")
                checking = "yes" if keys else "accept-new"
                status, output, problem = self.module.run_command(
                    self.ssh(known_hosts, checking) + [guest_script(outside)]
                )
                return status != SSH_FAILED

            if not self.until(attempt):
                layer, explanation = login_problem(problem)
                login = f"{self.params['user']}@{self.address}"
                raise ProbeError(
                    layer, f"ssh to {login} fails for {self.params['timeout']} s: {explanation}.\n{problem.strip()}"
                )
        found = answers(output)
        if "hostname" not in found:
            raise ProbeError(
                "guest", f"the guest lets its user in but runs no command: {(output + problem).strip()[:300]}"
            )
        return found, "console" if keys else "first seen"

    def ssh(self, known_hosts: str, checking: str) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": str(SSH_CONNECT_SECONDS),
            "GlobalKnownHostsFile": "/dev/null",
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
            "PreferredAuthentications": "publickey",
            "StrictHostKeyChecking": checking,
            "UserKnownHostsFile": known_hosts,
        }
        command = ["ssh", "-F", "none", "-T", "-i", self.params["private_key"]]
        for name, value in options.items():
            command += ["-o", f"{name}={value}"]
        return [*command, f"{self.params['user']}@{self.address}"]

    def run(self) -> dict[str, Any]:
        outside = None
        if self.params["outside_address"]:
            outside = Outside(*(self.params[f"outside_{name}"] for name in ("address", "port", "token", "peers")))
        if not os.path.exists(self.params["private_key"]):
            raise ProbeError("guest", f"the private key {self.params['private_key']} does not exist on this host")
        self.find()
        # Beside the rest: for most of the time, each of the two waits.
        consoles = Background(self.see_consoles)
        self.reach()
        found, host_key = self.log_in(outside)
        expected = self.server["hostname"]
        if expected and found["hostname"].partition(".")[0] != expected:
            raise ProbeError(
                "guest metadata",
                f"the guest is called '{found['hostname']}', but the metadata service names it '{expected}'",
            )
        address = self.address
        return {
            "address": address,
            # Nova takes half a second to read it again, which a console that has the address already can be spared.
            "lease_on_console": address_on(self.last_console, address) or address_on(self.console(), address),
            "hostname": found["hostname"],
            "host_key": host_key,
            "outside_peer": check_outside(outside, found.get("outside", "")) if outside else "",
            "consoles": consoles.result(),
        }

    def evidence(self, layer: str) -> str:
        """What tells about the failure: the service's logs, the console's end, and for SNAT the kernel's rules."""
        parts = [layer_logs([layer])]
        if layer == "SNAT":
            try:
                with open("/proc/sys/net/ipv4/ip_forward", encoding="ascii") as stream:
                    parts.append(f"--- net.ipv4.ip_forward: {stream.read().strip()}")
            except OSError as error:
                parts.append(f"--- net.ipv4.ip_forward: {error}")
            if nft := self.module.get_bin_path("nft"):
                parts.append(f"--- nft list ruleset:\n{self.module.run_command([nft, 'list', 'ruleset'])[1].rstrip()}")
        if not self.server:
            return "\n".join(parts)
        try:
            parts += ["--- the guest's console:", *tail(self.console(), CONSOLE_LINES)]
        except CloudError as error:
            parts.append(f"({error})")
        return "\n".join(parts)


def probe_healthy(probe: Probe) -> dict[str, Any]:
    """Look at the guest while the cloud is looked at. Unhealthy, or what Probe.run() raises in a healthy cloud."""
    params = probe.params
    early = Background(probe.run)
    state, at_once = healthy(
        probe.api, params["computes"], params["images"], [params["server"]], params["cloud_timeout"]
    )
    server = next(one for one in state["servers"] if one["name"] == params["server"])
    try:
        seen = early.result()
    except (CloudError, ConsoleError, ProbeError):
        probe.server = server
        if at_once:
            raise
        # That was before the cloud was healthy.
        seen = probe.run()
    return state | seen | {"server": server}


def main() -> None:
    names = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            **CLIENT_ARGUMENTS,
            "server": {"type": "str", "required": True},
            "computes": names,
            "images": names,
            "cloud_timeout": {"type": "int", "default": 60},
            "interface": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            # The name of a file, no secret.
            "private_key": {"type": "path", "required": True, "no_log": False},
            "outside_address": {"type": "str", "default": ""},
            "outside_port": {"type": "int", "default": 0},
            "outside_token": {"type": "str", "default": "", "no_log": False},
            "outside_listen": {"type": "str", "default": ""},
            "outside_peers": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 120},
            "consoles": {"type": "dict", "options": CONSOLE_ARGUMENTS},
        },
        supports_check_mode=True,
    )
    probe = Probe(module, CloudApi(connect(module)))
    try:
        result = probe_healthy(probe)
    except Unhealthy as error:
        module.fail_json(msg=str(error), problems=error.problems, layer=error.layer)
    except (CloudError, ConsoleError) as error:
        logs = layer_logs([error.layer])
        module.fail_json(msg=f"{error.layer}: {error}\n{logs}", layer=error.layer, server=probe.server)
    except ProbeError as error:
        evidence = probe.evidence(error.layer)
        module.fail_json(msg=f"{error.layer}: {error}\n{evidence}", layer=error.layer, server=probe.server)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
