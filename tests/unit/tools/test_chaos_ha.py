# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Test tools/chaos_ha: which faults are drawn, and what counts as a finding."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tools.chaos.lab import Lab
from tools.chaos_ha import __main__ as campaign
from tools.chaos_ha import faults, observer, site

PROJECT = Path(__file__).resolve().parents[3]
REQUESTS = {"sent": 100, "refused": 3, "longest_gap": {"compute": 4.5, "image": 0.6}}
WRITES = {
    "port": {"acknowledged": 40, "failed": {}, "longest_gap": 2.5, "lost": []},
    "image": {"acknowledged": 41, "failed": {"503": 2}, "longest_gap": 3.5, "lost": [7]},
}


def test_the_seed_says_which_faults() -> None:
    first = faults.draw(20, 1)
    assert first == faults.draw(20, 1)
    assert first != faults.draw(20, 2)
    assert len({fault.name for fault in first}) == 20
    assert len(faults.draw(1000, 1)) == len(faults.FAULTS)


def test_few_faults_are_one_of_each_kind() -> None:
    kinds = {fault.name.partition(":")[0] for fault in faults.FAULTS}
    assert {fault.name.partition(":")[0] for fault in faults.draw(len(kinds), 3)} == kinds


def test_each_daemon_of_a_controller_is_killed() -> None:
    """A new service of a controller must be in the list."""
    known = set()
    for role in ("glance", "keystone", "neutron", "nova", "placement"):
        service = yaml.safe_load((PROJECT / "roles" / role / "vars" / "main.yml").read_text())[f"{role}_service"]
        known |= {unit["name"] for unit in service["units"] if isinstance(unit, dict)}
    services = {name.removesuffix(".service") for name in known if name.endswith(".service")}
    services -= {"kilonova-serial-redirect"}  # It writes rules and ends.
    assert services <= set(faults.DAEMONS), "missing in tools/chaos_ha/faults.py"


def test_what_clients_saw() -> None:
    seen = observer.summarize(REQUESTS, WRITES, (50, 1))
    assert seen == observer.Seen(4.5, 3, 100, 3.5, 81, 1, 50, 1)


@pytest.mark.parametrize(("received", "lost"), [(100, 0), (99, 0), (90, 9)])
def test_the_last_packet_is_under_way(received: int, lost: int) -> None:
    text = f"--- 192.0.2.7 ping statistics ---\n100 packets transmitted, {received} packets received, 0% packet loss\n"
    assert observer.count_pings(text) == (99, lost)


def test_a_ping_that_did_not_run_is_an_error() -> None:
    with pytest.raises(site.Failed, match="sh: ping: not found"):
        observer.count_pings("sh: ping: not found")


def test_findings() -> None:
    good = observer.Seen(9.5, 20, 100, 9.0, 80, 0, 99, 0)
    assert campaign.judge(campaign.Result("f", "h", 30, good)) == ""
    lost = observer.Seen(0.5, 0, 100, 0.5, 80, 1, 99, 0)
    assert campaign.judge(campaign.Result("f", "h", 30, lost)) == "1 acknowledged writes are lost"
    pings = observer.Seen(0.5, 0, 100, 0.5, 80, 0, 99, 2)
    assert campaign.judge(campaign.Result("f", "h", 30, pings)) == "2 packets between guests are lost"
    assert campaign.judge(campaign.Result("f", "h", finding="it hangs")) == "it hangs"


def test_its_own_inventory_is_a_lab_of_three_controllers(tmp_path: Path) -> None:
    lab = Lab.of(site.own_inventory(tmp_path))
    assert lab.name == "chaos-ha"
    assert site.Site(lab, tmp_path).controllers == ["ctl1", "ctl2", "ctl3"]
    assert site.Site(lab, tmp_path).groups["compute"] == ["cmp1", "cmp2"]
