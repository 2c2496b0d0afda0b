# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What counts as refused."""

from __future__ import annotations

import time

from tools import api_requests


def test_errors_and_missing_answers_are_refused() -> None:
    seen = api_requests.Seen()
    for status, error in ((200, ""), (300, ""), (401, ""), (503, ""), (None, "ConnectionRefusedError()")):
        seen.add("compute", time.time(), status, error)
    found = seen.summary()
    assert (found["sent"], found["refused"], found["sent_to"]["compute"]) == (5, 3, 5)
    assert [one["answer"] for one in found["examples"]] == [401, 503, "ConnectionRefusedError()"]


def test_pings() -> None:
    lines = [f"64 bytes from 192.0.2.7: icmp_seq={number} ttl=63 time=1.2 ms" for number in (1, 3, 4)]
    late = [f"no answer yet for icmp_seq={number}" for number in (2, 3)]
    summary = "--- 192.0.2.7 ping statistics ---\n5 packets transmitted, 3 received, 40% packet loss, time 1ms"
    text = "\n".join([*late, *lines, summary])
    assert api_requests.lost_pings(text) == {"sent": 4, "lost": 1}, "late is not lost, and the last one is under way"
    assert api_requests.lost_pings("") == {"sent": 0, "lost": 0}


def test_a_request_has_its_token_and_a_login_none() -> None:
    text = api_requests.message("GET", "192.0.2.1:8774", "/v2.1/servers", "abc", b"")
    assert text.startswith(b"GET /v2.1/servers HTTP/1.1\r\nHost: 192.0.2.1:8774\r\n")
    assert b"X-Auth-Token: abc\r\n" in text and text.endswith(b"\r\n\r\n")
    login = api_requests.message("POST", "192.0.2.1:5000", "/v3/auth/tokens", "", b"{}")
    assert b"X-Auth-Token" not in login and login.endswith(b"Content-Length: 2\r\n\r\n{}")
