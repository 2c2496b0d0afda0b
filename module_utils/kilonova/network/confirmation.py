# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Run a module that changes how a host is reached, and confirm the change over a connection opened after it.

For action plugins; modules must not import this file. The host undoes what is not confirmed: the plugin waits until it
has, and fails with the reason.
"""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

PAUSE = 0.5
# A connection that the change cuts must end before the time for confirming is over.
SHORT = "-o ConnectTimeout=5 -o ConnectionAttempts=1 -o ServerAliveInterval=2 -o ServerAliveCountMax=2"


class ConfirmingAction(ActionBase):
    """An action whose module returns a token while its change waits to be confirmed."""

    TRANSFERS_FILES = False
    MODULE = ""
    # Seconds until a change begins after the module has returned, and for which it may take to undo it.
    START_DELAY = 0.0
    RETURN_SECONDS = 30.0

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        token = ""
        options = self.shorten_timeouts()
        try:
            result.update(self._execute_module(module_name=self.MODULE, task_vars=variables))
            if result.get("changed") and not result.get("failed") and not self._task.check_mode:
                token = str(result.get("token") or "")
            if token:
                seconds = float(self._task.args.get("rollback_seconds", 60))
                problem = self.confirm(token, variables, seconds)
                result.update({"failed": True, "msg": problem} if problem else {})
        finally:
            self.restore_timeouts(options, reconnect=bool(token))
        return result

    def confirm(self, token: str, variables: dict[str, Any], seconds: float) -> str:
        """Confirm the change; otherwise wait for the rollback, and return what to tell the operator."""
        deadline = time.monotonic() + seconds
        why = f"No new connection to the host succeeded within {seconds:.0f} s."
        time.sleep(self.START_DELAY)
        answer = None
        while answer is None and time.monotonic() < deadline:
            answer = self.attempt(token, variables)
            if answer is None:
                time.sleep(PAUSE)
        if answer is not None:
            if not answer.get("failed"):
                return ""
            if not answer.get("status", {}).get("undone"):
                why = str(answer.get("msg") or why)
        deadline += self.RETURN_SECONDS
        now: dict[str, Any] = {}
        while time.monotonic() < deadline:
            now = self.ask(variables, state="inspected") or {}
            if not now.get("status", {"armed": True}).get("armed"):
                return self.explain(why, now)
            time.sleep(PAUSE)
        return self.explain(why, None)

    def attempt(self, token: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        """Return the answer of the host to a confirmation; None to try again."""
        return self.ask(variables, state="confirmed", token=token)

    def explain(self, why: str, now: dict[str, Any] | None) -> str:
        """Return the message of a failure; ``now`` is what a host that returned says, None for one that did not."""
        raise NotImplementedError

    def shorten_timeouts(self) -> str | None:
        """Make ssh notice a cut connection within seconds; return the former options."""
        try:
            former = str(self._connection.get_option("ssh_extra_args") or "")
            self._connection.set_option("ssh_extra_args", f"{former} {SHORT}".strip())
        except (KeyError, AnsibleError):
            return None
        return former

    def restore_timeouts(self, former: str | None, reconnect: bool) -> None:
        """Give later tasks the options of the user."""
        if former is not None:
            self._connection.set_option("ssh_extra_args", former)
            if reconnect:
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
        try:
            answer: dict[str, Any] = self._execute_module(
                module_name=self.MODULE, module_args={**self._task.args, **changes}, task_vars=variables
            )
        except AnsibleConnectionFailure:
            return None
        return None if answer.get("unreachable") else answer
