# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin network_bridge confirms a change over a new connection, or says what the host did."""

from __future__ import annotations

from typing import Any

from plugins.action import network_bridge as action


class Plugin(action.ActionModule):
    """The plugin with a list of answers in place of a host; None is a host that does not answer."""

    def __init__(self, answers: list[dict[str, Any] | None]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def ask(self, variables: dict[str, Any], **changes: Any) -> dict[str, Any] | None:
        """Return the next answer; repeat the last one."""
        self.asked.append(changes["state"])
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def status(armed: bool, applied: bool, undone: str = "") -> dict[str, Any]:
    """An answer of state=inspected."""
    return {"status": {"armed": armed, "applied": applied, "undone": undone}, "log": "ifup failed"}


def test_confirms_over_a_connection_made_after_the_change() -> None:
    plugin = Plugin([None, status(True, False), None, status(True, True), {"changed": True}])
    assert plugin.confirm("t1", {}, 60) == ""
    assert plugin.asked == ["inspected"] * 4 + ["confirmed"]


def test_gives_up_at_once_when_the_host_returned() -> None:
    plugin = Plugin([status(False, False, "timer")])
    assert "by itself" in plugin.confirm("t1", {}, 60)
    assert plugin.asked == ["inspected"] * 2


def test_failure_says_that_the_host_came_back() -> None:
    plugin = Plugin([*[None] * 3, status(True, True), status(False, True, "timer")])
    text = plugin.confirm("t1", {}, 3)
    assert text.startswith(
        "The bridge was not put in place: No new connection to the host succeeded within 3 s. It "
        "returned to its old configuration by itself and answers again."
    )
    assert text.endswith("What the host did:\nifup failed")


def test_failure_says_that_the_host_did_not_come_back() -> None:
    broken = {"failed": True, "msg": "It is broken.", **status(True, True)}
    text = Plugin([status(True, True), broken, None]).confirm("t1", {}, 60)
    assert text.startswith(
        "It is broken. The host does not answer with its old configuration either. Look at its console"
    )
