# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Which services do not answer over RabbitMQ, and what is said about them."""

from __future__ import annotations

import threading
from typing import Any

from ansible.module_utils.kilonova.cloud import rpc_ping


def server(topic: str, host: str) -> dict[str, Any]:
    return {
        "topic": topic,
        "server": host or "volumes@ceph",
        "host": host,
        "unit": f"nova-{topic}",
        "layer": f"Nova {topic}",
    }


def test_all_are_asked_at_the_same_time() -> None:
    together = threading.Barrier(3)

    def ask(one: Any) -> str:
        together.wait(5)
        return ""

    servers = [server("conductor", "ctl1"), server("conductor", "ctl2"), server("compute", "cmp1")]
    assert rpc_ping.problems(servers, ask, 20) == []


def test_the_deaf_one_is_named_with_its_host_and_what_mends_it() -> None:
    servers = [server("conductor", "ctl1"), server("conductor", "ctl2")]
    (found,) = rpc_ping.problems(servers, lambda one: "MessagingTimeout" if one["host"] == "ctl2" else "", 20)
    assert found["message"].startswith("nova-conductor on ctl2 does not answer calls over RabbitMQ within 20 s")
    assert "systemctl restart nova-conductor on ctl2" in found["message"]
    assert (found["layer"], found["hosts"], found["passes"]) == ("Nova conductor", ["ctl2"], False)


def test_what_several_hosts_answer_is_of_no_host() -> None:
    (found,) = rpc_ping.problems([server("volume", "")], lambda one: "MessagingTimeout", 5)
    assert found["message"].startswith("nova-volume does not answer")
    assert "systemctl restart nova-volume mends that" in found["message"]
    assert found["hosts"] == []
