# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Run the module network_bridge and confirm a change that it started over a new connection.

The host undoes an unconfirmed change (module_utils/kilonova/network/rollback.py). This plugin then waits for the host
to return with its former configuration, and fails with the reason.
"""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

# The change begins a second after the module has returned. Earlier connections would use the old configuration.
START_DELAY = 1.5
PAUSE = 0.5
# Time for the rollback itself (ifdown, ifup, DHCP), in addition to rollback_seconds.
RETURN_SECONDS = 90
# A connection cut by the change must end before the time for confirming is over.
KEEPALIVE = "-o ConnectTimeout=5 -o ConnectionAttempts=1 -o ServerAliveInterval=2 -o ServerAliveCountMax=2"


class ActionModule(ActionBase):
    """Documented in library/network_bridge.py."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        result.update(self._execute_module(module_name="network_bridge", task_vars=variables))
        if result.get("failed") or not result.get("changed") or not result.get("token"):
            return result
        seconds = float(self._task.args.get("rollback_seconds", 60))
        options = self.shorten_timeouts()
        try:
            answer = self.confirm(str(result["token"]), variables, time.monotonic() + seconds)
            if answer.get("failed"):
                answer = self.explain(answer, str(result["token"]), variables, seconds)
        finally:
            self.restore_timeouts(options)
        if answer.get("failed"):
            result.update(failed=True, msg=answer["msg"])
        return result

    def shorten_timeouts(self) -> str | None:
        """Make ssh notice a cut connection within seconds; return the former options."""
        try:
            former = self._connection.get_option("ssh_extra_args") or ""
            self._connection.set_option("ssh_extra_args", f"{former} {KEEPALIVE}".strip())
        except (KeyError, AnsibleError):
            return None
        return str(former)

    def restore_timeouts(self, former: str | None) -> None:
        """Give later tasks the options of the user."""
        if former is not None:
            self._connection.set_option("ssh_extra_args", former)
            self.reset()

    def reset(self) -> None:
        """Close the connection, persistent or not, open or not."""
        try:
            self._connection.reset()
        except (AnsibleError, AttributeError):
            self._connection.close()

    def ask(self, variables: dict[str, Any], **changes: Any) -> dict[str, Any] | None:
        """Call the module over a new connection; return None if the host does not answer."""
        self.reset()
        arguments = {**self._task.args, **changes}
        try:
            answer: dict[str, Any] = self._execute_module(
                module_name="network_bridge", module_args=arguments, task_vars=variables
            )
        except AnsibleConnectionFailure:
            return None
        return None if answer.get("unreachable") else answer

    def confirm(self, token: str, variables: dict[str, Any], deadline: float) -> dict[str, Any]:
        """Wait until the change is made, then confirm it over a connection opened after it."""
        time.sleep(START_DELAY)
        while time.monotonic() < deadline:
            answer = self.ask(variables, state="inspected")
            status = (answer or {}).get("status", {})
            if status.get("applied") and status.get("armed"):
                # The connection just used may have been opened before the change was complete.
                answer = self.ask(variables, state="confirmed", token=token)
                if answer is not None:
                    return answer
            elif status and not status.get("armed"):
                break
            time.sleep(PAUSE)
        return {"failed": True}

    def explain(self, answer: dict[str, Any], token: str, variables: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Wait for the host to return to its old configuration, and return the failure."""
        deadline = time.monotonic() + seconds + RETURN_SECONDS
        why = str(answer.get("msg") or f"No new connection to the host succeeded within {seconds:.0f} s of the change.")
        while time.monotonic() < deadline:
            now = self.ask(variables, state="inspected")
            status = (now or {}).get("status", {})
            if status and not status.get("armed"):
                break
            time.sleep(PAUSE)
        else:
            return {
                "failed": True,
                "msg": f"{why} The host does not answer with its old configuration either. Look at its console: "
                "journalctl -u 'kilonova-bridge-*'; the saved files and the script that restores them are in "
                "/var/lib/kilonova/bridge.",
            }
        outcome = (
            "It returned to its old configuration by itself and answers again"
            if status.get("undone")
            else "The change is no longer armed"
        )
        return {
            "failed": True,
            "msg": f"The bridge was not put in place: {why} {outcome}. Check bridge_method, bridge_address, "
            "bridge_gateway and what flat_interface is plugged into; where the network needs longer (DHCP, spanning "
            f"tree of a switch), raise bridge_rollback_seconds. What the host did:\n{(now or {}).get('log', '')}",
            "token": token,
        }
