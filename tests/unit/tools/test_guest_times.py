# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The times of guests: which are compared, what counts as lost, and what ends a measurement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from tools import guest_times

PINGS = """\
PING 192.168.1.5 (192.168.1.5) 56(84) bytes of data.
[1764460000.100000] 64 bytes from 192.168.1.5: icmp_seq=1 ttl=64 time=0.4 ms
[1764460000.200000] 64 bytes from 192.168.1.5: icmp_seq=2 ttl=64 time=0.4 ms
[1764460001.450000] From 192.168.1.1 icmp_seq=4 Destination Host Unreachable
[1764460001.700000] 64 bytes from 192.168.1.5: icmp_seq=17 ttl=64 time=0.4 ms

--- 192.168.1.5 ping statistics ---
17 packets transmitted, 3 received, +1 errors, 82.3529% packet loss, time 1600ms
"""


def test_the_median_of_each_figure() -> None:
    rounds = [{"first": 3.04, "next": 1.0}, {"first": 9.0, "next": 2.0}, {"first": 3.0, "next": 4.0}]
    assert guest_times.summary(rounds) == {"first": 3.0, "next": 2.0}


def test_computes_by_kind() -> None:
    assert guest_times.places(["ceph=cmp1", "local=cmp2"]) == {"ceph": "cmp1", "local": "cmp2"}
    with pytest.raises(ValueError, match="write KIND=COMPUTE"):
        guest_times.places(["cmp1"])


def test_lost_pings_and_the_longest_time_without_an_answer() -> None:
    assert guest_times.lost(PINGS) == {"sent": 17, "lost": 14, "longest gap": 1.5}


def test_a_guest_that_never_answers_is_no_figure() -> None:
    with pytest.raises(guest_times.FailedError, match="no answer"):
        guest_times.lost("5 packets transmitted, 0 received, 100% packet loss, time 400ms\n")


def test_rounds_alternate_and_each_has_an_image_of_its_own() -> None:
    booted: list[tuple[str, str, str, int]] = []

    class Cloud:
        made = 0

        @contextmanager
        def flavor(self, _memory: int, _mib: int) -> Iterator[str]:
            yield "flavor"

        @contextmanager
        def image(self, _mib: int) -> Iterator[str]:
            self.made += 1
            yield f"image{self.made}"

        def boot(self, image: str, flavor: str, compute: str, count: int) -> float:
            booted.append((image, flavor, compute, count))
            return float(count)

    cloud: Any = Cloud()
    found = guest_times.boots(cloud, {"ceph": "a", "local": "b"}, 20, 10, 2)
    assert [one[::2] for one in booted[::3]] == [("image1", "a"), ("image1", "b"), ("image2", "b"), ("image2", "a")]
    assert found["ceph"]["10 at once"] == 10.0 and len(found["local"]["rounds"]) == 2


def test_a_guest_in_error_ends_the_measurement() -> None:
    guest = SimpleNamespace(id="g", status="ERROR", fault="no room")
    cloud = guest_times.Cloud.__new__(guest_times.Cloud)
    cloud.nova = SimpleNamespace(servers=lambda name: [guest], get_server=lambda one: guest)
    with pytest.raises(guest_times.FailedError, match="no room"):
        cloud.all_active(["g"])


@pytest.mark.parametrize(("mib", "gib"), [(20, 1), (1024, 1), (1025, 2)])
def test_flavors_have_room_for_their_image(mib: int, gib: int) -> None:
    made: list[dict[str, Any]] = []

    def create(**given: Any) -> SimpleNamespace:
        made.append(given)
        return SimpleNamespace(id="f")

    cloud = guest_times.Cloud.__new__(guest_times.Cloud)
    cloud.nova = SimpleNamespace(create_flavor=create, delete_flavor=lambda one: made.clear())
    with cloud.flavor(64, mib) as flavor:
        assert (flavor, made[0]["disk"]) == ("f", gib)
    assert not made
