# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Check a cloud and a guest of it in one go. The logic of the module guest_probe."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud import guest_checks as checks
from ansible.module_utils.kilonova.cloud.api import CloudApi, CloudError, answered, console_log, layer_logs, tail
from ansible.module_utils.kilonova.cloud.client import CLIENT_ARGUMENTS, connect
from ansible.module_utils.kilonova.cloud.guest_checks import Outside, ProbeError
from ansible.module_utils.kilonova.cloud.health import HEALTH_ARGUMENTS, Unhealthy, healthy, read_servers
from ansible.module_utils.kilonova.consoles.probe import CONSOLE_ARGUMENTS, ConsoleError, probe_all
from ansible.module_utils.kilonova.system.background import Background

POLL_SECONDS = 0.5
CONSOLE_LINES = 25
SSH_FAILED = 255

ARGUMENT_SPEC: dict[str, Any] = {
    **CLIENT_ARGUMENTS,
    **HEALTH_ARGUMENTS,
    "server": {"type": "str", "required": True},
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
}


class Probe:
    """The checks of one guest, in the order in which a failure of one explains those of the next."""

    def __init__(self, module: AnsibleModule, api: CloudApi) -> None:
        self.module = module
        self.api = api
        self.params: dict[str, Any] = module.params
        self.server: dict[str, Any] = {}
        self.address = ""
        self.last_console = ""
        self._hiding = threading.Lock()

    def run(self) -> dict[str, Any]:
        """Run all checks and return what they saw. Raises ProbeError, ConsoleError or CloudError."""
        outside = None
        if self.params["outside_address"]:
            outside = Outside(*(self.params[f"outside_{name}"] for name in ("address", "port", "token", "peers")))
        if not os.path.exists(self.params["private_key"]):
            raise ProbeError("guest", f"the private key {self.params['private_key']} does not exist on this host")
        self.find_server()
        # In the background: both mostly wait.
        consoles = Background(self.check_consoles)
        self.check_ping()
        found, host_key = self.log_in(outside)
        self.check_hostname(found["hostname"])
        address = self.address
        return {
            "address": address,
            # Nova takes half a second to read the console again.
            "lease_on_console": (
                checks.address_on(self.last_console, address) or checks.address_on(self.console(), address)
            ),
            "hostname": found["hostname"],
            "host_key": host_key,
            "unshelved": self.was_unshelved(),
            "outside_peer": checks.check_outside(outside, found.get("outside", "")) if outside else "",
            "consoles": consoles.result(),
        }

    def find_server(self) -> None:
        name = self.params["server"]
        found = next((one for one in read_servers(self.api) if one["name"] == name), None)
        # What probe_healthy() added to it, such as its ports, stays for a second try.
        self.server = self.server | found if found else {}
        if not self.server:
            raise ProbeError("Nova API", f"there is no server '{name}' in the project")
        if not self.server["interfaces"]:
            raise ProbeError("Neutron", f"the server '{name}' has no address")
        self.address = self.server["interfaces"][0]["address"]

    def check_ping(self) -> None:
        """Wait until the address answers through the interface."""
        address, interface, timeout = self.address, self.params["interface"], self.params["timeout"]
        command = ["ping", "-n", "-q", "-c", "1", "-W", "1", "-I", interface, address]
        if not self.until(lambda: self.module.run_command(command)[0] == 0):
            raise checks.unreachable(self.console(), address, interface, timeout)
        used = checks.route_interface(self.module.run_command(["ip", "-json", "route", "get", address])[1])
        if used != interface:
            raise ProbeError("OVN", f"{address} is reached through '{used}', not through {interface}")

    def log_in(self, outside: Outside | None) -> tuple[dict[str, str], str]:
        """Log in over ssh. Returns the guest's answers, and what its host key was compared with."""
        login = f"{self.params['user']}@{self.address}"
        output, problem = "", ""
        # Ansible removes its own directory even where nobody waits for this thread.
        with tempfile.TemporaryDirectory(dir=self.module.tmpdir) as directory:
            known_hosts = os.path.join(directory, "known_hosts")
            keys: list[str] = []

            def attempt() -> bool:
                nonlocal output, problem, keys
                # Read again each time: a guest may print its keys only after it has its address.
                keys = checks.host_keys(self.console(), self.address)
                if keys:
                    with open(known_hosts, "w", encoding="utf-8") as stream:
                        stream.write("\n".join(keys) + "\n")
                ssh = checks.ssh_command(login, self.params["private_key"], known_hosts, strict=bool(keys))
                status, output, problem = self.module.run_command([*ssh, checks.guest_script(outside)])
                return status != SSH_FAILED

            if not self.until(attempt):
                layer, explanation = checks.login_problem(problem)
                raise ProbeError(
                    layer, f"ssh to {login} fails for {self.params['timeout']} s: {explanation}.\n{problem.strip()}"
                )
        found = checks.answers(output)
        if "hostname" not in found:
            raise ProbeError(
                "guest", f"the guest lets its user in but runs no command: {(output + problem).strip()[:300]}"
            )
        return found, "console" if keys else "first seen"

    def was_unshelved(self) -> bool:
        """Return whether the guest was shelved once: its disk was made anew, of a copy."""
        path = f"/servers/{self.server['id']}/os-instance-actions"
        return any(one["action"] == "unshelve" for one in self.api.get("compute", path).get("instanceActions", []))

    def check_hostname(self, found: str) -> None:
        expected = self.server["hostname"]
        if expected and found.partition(".")[0] != expected:
            raise ProbeError(
                "guest metadata", f"the guest is called '{found}', but the metadata service names it '{expected}'"
            )

    def check_consoles(self) -> dict[str, Any]:
        wanted = self.params["consoles"]
        return probe_all(self.api, self.server["id"], wanted, self.hide) if wanted else {}

    def hide(self, token: str) -> None:
        """Mask a console's token in the result. A new set, because another thread may iterate over the old one."""
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

    def evidence(self, layer: str) -> str:
        """Collect what explains a failure: logs, the end of the console, for SNAT the kernel's rules."""
        parts = [layer_logs([layer])]
        if layer == "SNAT":
            parts += self.translation()
        if not self.server:
            return "\n".join(parts)
        try:
            parts += ["--- the guest's console:", *tail(self.console(), CONSOLE_LINES)]
        except CloudError as error:
            parts.append(f"({error})")
        return "\n".join(parts)

    def translation(self) -> list[str]:
        """Return whether the kernel forwards packets, and its rules."""
        try:
            with open("/proc/sys/net/ipv4/ip_forward", encoding="ascii") as stream:
                parts = [f"--- net.ipv4.ip_forward: {stream.read().strip()}"]
        except OSError as error:
            parts = [f"--- net.ipv4.ip_forward: {error}"]
        if nft := self.module.get_bin_path("nft"):
            parts.append(f"--- nft list ruleset:\n{self.module.run_command([nft, 'list', 'ruleset'])[1].rstrip()}")
        return parts


def probe_healthy(probe: Probe) -> dict[str, Any]:
    """Check the guest and the cloud at the same time. Problems of the cloud take precedence (Unhealthy)."""
    params = probe.params
    early = Background(probe.run)
    state, at_once = healthy(
        probe.api,
        params["computes"],
        params["images"],
        [params["server"]],
        params["cloud_timeout"],
        params["silent_hosts"],
    )
    server = next(one for one in state["servers"] if one["name"] == params["server"])
    try:
        seen = early.result()
    except (CloudError, ConsoleError, ProbeError):
        probe.server = server
        if at_once:
            raise
        # The first try was before the cloud was healthy.
        seen = probe.run()
    return state | seen | {"server": server}


def run(module: AnsibleModule) -> None:
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
