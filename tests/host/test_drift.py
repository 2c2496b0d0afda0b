# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Test what a dry run reported of a cloud that had drifted, and what the next run corrected.

molecule/default/drift.yml made the changes listed here and kept the records of both runs.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

RECORDS = Path(__file__).resolve().parents[2] / ".cache" / "molecule" / "drift"

SCENARIO = os.environ.get("MOLECULE_SCENARIO_NAME")

# In the scenario that lets its cloud drift, missing records are a failure.
pytestmark = pytest.mark.skipif(
    SCENARIO not in (None, "default") or (SCENARIO is None and not RECORDS.is_dir()), reason="nothing was made to drift"
)

# What was changed by hand, and its entry in the records.
DRIFT = [
    ("a line was added to nova.conf", "/etc/nova/nova.conf"),
    ("what nova-api read has changed", "restart nova-api.service"),
    ("what nova-compute read has changed", "restart nova-compute.service"),
    ("a certificate of libvirtd was about to end", "/etc/pki/libvirt/servercert.pem"),
    ("a certificate of the guests' screens was about to end", "/etc/pki/libvirt-vnc/server-cert.pem"),
    ("libvirtd had read them", "reload libvirtd.service"),
    ("others may read glance-api.conf", "/etc/glance/glance-api.conf"),
    ("a file of uwsgi's was removed", "/etc/nova/nova-api-metadata-uwsgi.ini"),
    ("/etc/network/interfaces was edited", "bridge : Configure the bridge"),
    ("a unit was stopped", "start nova-scheduler.service"),
    ("a unit was disabled", "enable kilonova-memcached@keystone.service"),
    ("a package was removed", "install nova-doc"),
    ("a grant was revoked", "grant ALL PRIVILEGES on `glance`.* to 'glance'@'127.0.0.1'"),
    ("a database password was changed", "set the password of 'placement'@'127.0.0.1'"),
    ("a role was taken from a user", "create assignment of neutron to services as nova-admin"),
    ("a user's password was changed", "update user placement"),
    ("a service was renamed", "update service placement (placement)"),
    ("an endpoint was moved", "update endpoint image admin"),
    ("a flavor was deleted", "flavor m1.xlarge: created"),
    ("DHCP was switched off", "subnet nova-v4: changed"),
    ("the provider network was taken from OVN", "external-ids:ovn-bridge-mappings = physnet1:br-provider"),
    ("a connection to OVN without TLS was opened", "OVN northbound: ptcp:6641:127.0.0.1 closed"),
    ("the password of a queue's user was changed", "RabbitMQ: user nova (password_hash)"),
    ("a kernel parameter was changed", "sysctl net/ipv4/ip_forward = 1"),
    ("rules were flushed", "nftables: table ip kilonova"),
    ("serial consoles were led past HAProxy", "nftables: table ip kilonova_serial"),
    ("rules of the firewall were flushed", "nftables: table inet kilonova_filter"),
    ("the veth pair was deleted", "br-provider:ovs-br0 = the present device"),
    ("the identifier of the compute was deleted", "nova_compute : Keep the identifier of the compute"),
]
# The same for changes that no run corrects: the command that the report must give.
NEEDS_YOU = [
    ("a unit was masked", "haproxy.service is masked", "systemctl unmask haproxy.service"),
    ("a compute was disabled", "nova-compute on", "openstack compute service set --enable"),
    ("the guest was stopped", "'my_vm' is SHUTOFF", "openstack server start"),
    ("a localnet port was changed", "leads to 'other'", "ovn-nbctl set Logical_Switch_Port provnet-"),
    ("a flavor was given other RAM", "'m1.large' differs (ram is 4096, wanted 8192)", "openstack flavor delete 4;"),
]
NOT_OURS = {
    "RabbitMQ: user site",
    "br0: address 192.0.2.9/24",
    "nova-novncproxy.service: drop-in /etc/systemd/system/nova-novncproxy.service.d/site.conf",
    "haproxy.service sends no requests to nova-novncproxy/aio1, which was set to MAINT at run time",
}
# Consequences: the other units that read nova.conf, and what the kernel sets when it stops forwarding.
CONSEQUENCES = {f"restart nova-{name}.service" for name in ("api-metadata", "conductor", "novncproxy", "serialproxy")}
CONSEQUENCES.add("sysctl net/ipv4/conf/all/accept_redirects = 0")


def record(name: str) -> list[dict[str, Any]]:
    return list(json.loads((RECORDS / f"{name}.json").read_text()))


def items(entries: list[dict[str, Any]]) -> set[str]:
    return {item for entry in entries for item in entry.get("items", [])}


def sentences(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["needs_you"] for entry in entries if "needs_you" in entry]


@pytest.mark.parametrize(("done", "said"), DRIFT, ids=[done for done, said in DRIFT])
def test_a_dry_run_names_it_and_the_next_run_corrects_it(done: str, said: str) -> None:
    assert said in items(record("predicted"))
    assert said in items(record("changed"))


@pytest.mark.parametrize(("done", "said", "command"), NEEDS_YOU, ids=[row[0] for row in NEEDS_YOU])
def test_a_dry_run_names_what_needs_the_operator(done: str, said: str, command: str) -> None:
    assert [command in text for text in sentences(record("predicted")) if said in text] == [True]


def test_a_dry_run_lists_what_is_not_ours() -> None:
    assert {entry["foreign"] for entry in record("predicted") if "foreign" in entry} == NOT_OURS


def test_a_dry_run_names_nothing_else() -> None:
    assert len(sentences(record("predicted"))) == len(NEEDS_YOU)
    assert items(record("predicted")) == {said for done, said in DRIFT} | CONSEQUENCES
    assert [entry for entry in record("predicted") if "not_looked_at" in entry] == []


def test_the_run_did_what_was_predicted_task_by_task() -> None:
    # By then, the operator had done what the others need.
    changed = [entry for entry in record("changed") if "foreign" not in entry]
    assert changed == [entry for entry in record("predicted") if not entry.keys() & {"needs_you", "foreign"}]


def test_nothing_differs_afterwards() -> None:
    assert record("left") == []
