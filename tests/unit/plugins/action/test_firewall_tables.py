# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin firewall_tables confirms rules over a new connection, or says what the host did."""

from __future__ import annotations

from typing import Any

from plugins.action import firewall_tables as action


class Plugin(action.ActionModule):
    """The plugin with a list of answers in place of a host; None is a host that does not answer."""

    def __init__(self, answers: list[dict[str, Any] | None]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def ask(self, variables: dict[str, Any], **changes: Any) -> dict[str, Any] | None:
        """Return the next answer; repeat the last one."""
        self.asked.append(changes["state"])
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_confirms_as_soon_as_the_host_answers() -> None:
    plugin = Plugin([None, None, {"changed": True}])
    assert plugin.confirm("t1", {}, 60) == ""
    assert plugin.asked == ["confirmed"] * 3


def test_failure_says_that_the_host_came_back() -> None:
    plugin = Plugin([None] * 3 + [{"status": {"armed": True}}, {"status": {"armed": False, "undone": True}}])
    text = plugin.confirm("t1", {}, 1.5)
    assert text.startswith(
        "The firewall was not changed: No new connection to the host succeeded within 2 s. It returned to its former "
        "rules by itself and answers again. Check firewall_ssh_sources"
    )


def test_a_refused_confirmation_is_not_repeated() -> None:
    plugin = Plugin([{"failed": True, "msg": "It was undone."}, {"status": {"armed": False}}])
    text = plugin.confirm("t1", {}, 60)
    assert "The firewall was not changed: It was undone." in text
    assert plugin.asked == ["confirmed", "inspected"]


def test_a_host_that_had_returned_by_then_was_not_reached_in_time() -> None:
    undone = {"armed": False, "undone": True}
    plugin = Plugin([None, {"failed": True, "msg": "There is no such change.", "status": undone}, {"status": undone}])
    text = plugin.confirm("t1", {}, 60)
    assert "No new connection to the host succeeded within 60 s." in text


def test_failure_says_that_the_host_did_not_come_back() -> None:
    text = Plugin([None]).confirm("t1", {}, 60)
    assert "The host does not answer with its former rules either. Look at its console" in text
