# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import socket

import pytest
from ansible.module_utils.kilonova.system.unit_readiness import (
    all_listening,
    in_group,
    listening,
    not_ready,
    sockets_of,
)

from tests.unit.module_utils.system.sample_units import START, STARTED, unit


def test_only_ports_of_the_unit_count() -> None:
    text = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100\n"
        "   1: 0100007F:1389 0100007F:0016 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100\n"
    )
    assert listening(text) == {5000: {"4711"}}
    with open("/proc/self/cgroup", encoding="ascii") as stream:
        own_group = stream.readline().strip().split(":", 2)[2]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert all_listening()[port] & sockets_of(own_group)
        assert not sockets_of("/system.slice/there-is-no-such.service")
    assert port not in all_listening()


def test_control_groups_of_both_versions() -> None:
    group = "/system.slice/nova-api.service"
    assert in_group("0::/system.slice/nova-api.service\n", group)
    assert in_group("4:cpu:/\n1:name=systemd:/machine/floor/system.slice/nova-api.service/sub\n", group)
    assert not in_group("0::/system.slice/nova-api.service-other\n", group)


@pytest.mark.parametrize(
    ("now", "lacks", "hopeless"),
    [
        ({}, "", False),
        ({"ActiveState": "failed", "Result": "exit-code"}, "failed (exit-code)", True),
        ({"ActiveState": "activating", "SubState": "start"}, "is activating (start)", False),
        ({"Job": "7"}, "has not restarted yet: its restart waits for another unit", False),
        ({"NRestarts": "2"}, "", False),
        ({"NRestarts": "3"}, "died and was restarted by systemd 3 times", True),
        ({"ActiveState": "inactive", "ConditionResult": "no", "ConditionTimestamp": START}, "a condition of its unit "
         "file is not met (see 'systemctl status')", True),
        # Its job waits for another unit, so systemd has not checked the conditions yet.
        ({"ActiveState": "inactive", "SubState": "dead", "ConditionResult": "no", "ConditionTimestamp": "",
          "Job": "7"}, "is inactive (dead)", False),
        ({"ActiveState": "inactive", "SubState": "dead"}, "is inactive, and systemd is not starting it any more", True),
        # It ran before, so it did not fail at a condition.
        ({"ActiveState": "inactive", "SubState": "dead", "ConditionResult": "no", "ConditionTimestamp": START,
          "InactiveExitTimestamp": START, "Job": "7"}, "is inactive (dead)", False),
        ({"ActiveState": "active", "SubState": "exited", "ExecMainPID": "0"}, "", False),
    ],
)  # fmt: skip
def test_not_ready(now: dict[str, str], lacks: str, hopeless: bool) -> None:
    assert not_ready(unit(**now), 0, 1.5, {}, STARTED + 2) == (lacks, hopeless)


def test_not_ready_before_it_has_settled_and_listens() -> None:
    assert not_ready(unit(), 0, 1.5, {}, STARTED + 1) == ("has been running for less than 1.5 s", False)
    assert not_ready(unit({"ports": [5000]}), 0, 1.5, {}, STARTED + 2) == ("does not listen on port 5000", False)
    others = {5000: {"not ours"}}
    assert not_ready(unit({"ports": [5000]}), 0, 1.5, others, STARTED + 2) == ("does not listen on port 5000", False)
