# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Run the module firewall_tables and confirm tables that it loaded over a new connection.

The host returns to its former tables unless that succeeds (module_utils/kilonova/network/firewall_tables.py). This
plugin then waits until it has, and fails with the reason.
"""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

PAUSE = 0.5
# Time for the rollback itself, in addition to rollback_seconds.
RETURN_SECONDS = 30
# A connection that the rules cut must end before the time for confirming is over.
SHORT = "-o ConnectTimeout=5 -o ConnectionAttempts=1 -o ServerAliveInterval=2 -o ServerAliveCountMax=2"


class ActionModule(ActionBase):
    """Documented in library/firewall_tables.py."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        seconds = float(self._task.args.get("rollback_seconds", 60))
        options = self.set_ssh_options(SHORT)
        try:
            result.update(self._execute_module(module_name="firewall_tables", task_vars=variables))
            token = str(result.get("token") or "")
            if result.get("failed") or not result.get("changed") or not token or self._task.check_mode:
                return result
            self.confirm(result, token, variables, seconds)
        finally:
            self.restore_ssh_options(options)
        return result

    def confirm(self, result: dict[str, Any], token: str, variables: dict[str, Any], seconds: float) -> None:
        """Confirm over a connection opened after the change; otherwise wait for the rollback, and fail."""
        deadline = time.monotonic() + seconds
        why = f"No new connection to the host succeeded within {seconds:.0f} s."
        while time.monotonic() < deadline:
            answer = self.ask(variables, state="confirmed", token=token)
            if answer is not None:
                if not answer.get("failed"):
                    return
                if not answer.get("status", {}).get("undone"):
                    why = str(answer.get("msg"))
                break
            time.sleep(PAUSE)
        deadline += RETURN_SECONDS
        status: dict[str, Any] = {"armed": True}
        while status.get("armed") and time.monotonic() < deadline:
            status = (self.ask(variables, state="inspected") or {}).get("status", status)
            time.sleep(PAUSE)
        outcome = (
            "The host does not answer with its former rules either. Look at its console: "
            "sh /var/lib/kilonova/firewall/rollback."
            if status.get("armed")
            else "It returned to its former rules by itself and answers again."
        )
        result.update(
            failed=True,
            msg=f"The firewall was not changed: {why} {outcome} Check firewall_ssh_sources, firewall_ssh_ports and "
            "firewall_extra_rules.",
        )

    def set_ssh_options(self, more: str) -> str | None:
        """Make ssh notice a cut connection within seconds; return the former options."""
        try:
            former = str(self._connection.get_option("ssh_extra_args") or "")
            self._connection.set_option("ssh_extra_args", f"{former} {more}".strip())
        except (KeyError, AnsibleError):
            return None
        return former

    def restore_ssh_options(self, former: str | None) -> None:
        """Give later tasks the options of the user."""
        if former is not None:
            self._connection.set_option("ssh_extra_args", former)

    def reset(self) -> None:
        """Close the connection, persistent or not, open or not."""
        try:
            self._connection.reset()
        except (AnsibleError, AttributeError):
            self._connection.close()

    def ask(self, variables: dict[str, Any], **changes: Any) -> dict[str, Any] | None:
        """Call the module over a new connection; return None if the host does not answer."""
        self.reset()
        try:
            answer: dict[str, Any] = self._execute_module(
                module_name="firewall_tables", module_args={**self._task.args, **changes}, task_vars=variables
            )
        except AnsibleConnectionFailure:
            return None
        return None if answer.get("unreachable") else answer
