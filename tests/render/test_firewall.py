# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The firewall follows from the service maps, and its page says what it does."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible.module_utils.kilonova.network.firewall_sets import with_elements
from ansible.template import trust_as_template

from plugins.filter.services import reachable_ports
from tests.render import rendering
from tests.render.rendering import PROJECT

PAGE = PROJECT / "docs" / "operate" / "firewall.md"
ON = {"ctl1": "controllers", "cmp1": "computes", "cmp2": "computes", "sto2": "storage hosts"}
NAMES = {
    "everyone": "`firewall_api_sources`, hosts",
    "controller": "controllers",
    "compute": "computes",
    "controller, compute": "hosts",
    "compute, controller": "hosts",
    "controller, compute, storage": "all hosts",
    "": "nobody",
}
PROTOCOLS = {"tcp": "", "udp": "/UDP", "vrrp": "/IP"}


def table_lines() -> list[str]:
    """The lines of the table that the maps make, one for each port."""
    found: dict[str, dict[str, Any]] = {}
    for inventory, hosts in (("multihost", ["ctl1", "cmp1", "cmp2"]), ("storage", ["sto2"])):
        for host in hosts:
            for port in reachable_ports(rendering.load(inventory).services(host)):
                found.setdefault(port["name"], {**port, "on": []})["on"] += [ON[host]]
    # What only clouds with a store have on controllers.
    for port in reachable_ports(rendering.load("storage").services("cloud1")):
        found.setdefault(port["name"], {**port, "on": ["controllers"]})
    return sorted_lines(found)


def clustered_lines() -> list[str]:
    """The lines of the second table: what is different with several controllers."""
    services = [one for one in rendering.load("clustered").services("ctl1") if [*one["groups"]] == ["controller"]]
    found = {port["name"]: {**port, "on": ["controllers"]} for port in reachable_ports(services)}
    return [line for line in sorted_lines(found) if line not in table_lines()]


def sorted_lines(found: dict[str, dict[str, Any]]) -> list[str]:
    """The lines of ports, in the order of their numbers."""
    lines = []
    for port in sorted(found.values(), key=lambda one: (int(one["ports"].partition("-")[0]), one["name"])):
        on = "controllers, computes" if len({*port["on"]}) == 2 else port["on"][0]
        number = port["ports"] + PROTOCOLS[port["protocol"]]
        local = ", ".join(f"`{user}`" for user in port["local_users"]) or "all users"
        lines.append(f"| {number} | {port['title']} | {on} | {NAMES[', '.join(port['from'])]} | {local} |")
    return lines


def test_the_page_has_the_tables_of_the_maps() -> None:
    written = [line for line in PAGE.read_text().splitlines() if re.match(r"\| \d", line)]
    # The line of ssh is not from a map.
    assert [line for line in written if not line.startswith("| 22 ")] == table_lines() + clustered_lines()


def rules(host: str, **changes: Any) -> str:
    sample = rendering.load("multihost")
    templar = sample.templar(host, changes)
    path = PROJECT / "roles" / "firewall" / "templates" / "firewall.nft.j2"
    text = templar.template(trust_as_template(path.read_text()))
    assert isinstance(text, str)
    return text


def chain(text: str, name: str) -> list[str]:
    """The rules of a chain."""
    (body,) = re.findall(rf"^    chain {name} \{{\n(.*?)^    \}}$", text, re.MULTILINE | re.DOTALL)
    return [line.strip() for line in body.splitlines()]


def test_ports_between_hosts_are_open_to_the_groups_that_need_them() -> None:
    compute, controller = chain(rules("cmp1"), "from_hosts"), chain(rules("ctl1"), "from_hosts")
    assert "ip saddr @controller tcp dport 6084 accept" in compute
    assert "ip saddr @compute tcp dport 16514 accept" in compute
    assert "ip saddr @compute tcp dport 5671 accept" in controller
    # The queue and the databases are on the controller only, guests' consoles on computes only.
    assert not [rule for rule in compute if re.search(r"dport (5671|16642|3306)", rule)]
    assert not [rule for rule in controller if re.search(r"dport (5900|16514|6084)", rule)]
    # QEMU speaks no TLS there.
    assert not [rule for rule in [*compute, *controller] if "dport 10000" in rule]


def test_ports_without_tls_are_open_in_the_run_that_moves_hosts() -> None:
    ports = {"ip saddr @compute tcp dport 5672 accept", "ip saddr @compute tcp dport 6642 accept"}
    assert not ports & {*chain(rules("ctl1"), "from_hosts")}
    assert ports <= {*chain(rules("ctl1", cloud_plain=True), "from_hosts")}


def test_guests_reach_the_front_doors_only() -> None:
    assert [rule for rule in chain(rules("ctl1"), "guests_to_host") if "tcp" in rule] == [
        "tcp dport { 5000, 6080, 6083, 8774, 8778, 9292, 9696 } jump front_doors"
    ]
    assert chain(rules("cmp1"), "guests_to_host")[-1].startswith("counter drop")


def test_hosts_know_each_other_by_all_their_addresses() -> None:
    text = rules("ctl1")
    assert "elements = { 192.0.2.10, 192.0.2.21, 192.0.2.22, 198.18.0.10 }" in text


@pytest.mark.parametrize(("address", "apart"), [("192.0.2.10/24", False), ("192.168.1.1/24", True)])
def test_guests_of_other_hosts_are_known_by_where_they_come_from(address: str, apart: bool) -> None:
    facts = {
        **rendering.load("multihost").variables("ctl1")["preflight_facts"],
        "interfaces": {"br0": {"addresses": [address]}},
    }
    found = chain(rules("ctl1", preflight_facts=facts), "from_guests")
    wanted = (
        'iifname "br0" goto guests_to_host' if apart else 'iifname "br0" ip saddr 192.168.1.0/24 goto guests_to_host'
    )
    assert wanted in found


def test_without_the_firewall_its_tables_are_only_deleted() -> None:
    assert rules("ctl1", firewall_enabled=False).split("\n\n")[0].count("{") == 0


@pytest.mark.parametrize(
    ("before", "after"), [(["cmp1"], ["cmp1", "cmp2"]), (["cmp1", "cmp2"], ["cmp1"]), ([], ["cmp2"])]
)
def test_a_host_that_comes_or_goes_leaves_the_files_that_a_whole_run_writes(
    before: list[str], after: list[str]
) -> None:
    templar = rendering.load("multihost").templar("ctl1", {"cloud_computes": after})
    sets = templar.template(trust_as_template("{{ firewall_sets_arguments.sets }}"))
    former, wanted = rules("ctl1", cloud_computes=before), rules("ctl1", cloud_computes=after)
    assert former != wanted
    assert with_elements(former, sets) == wanted
    assert with_elements(wanted, sets) == wanted
