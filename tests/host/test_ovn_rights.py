# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What a compute, a stranger and a local user may do with OVN's databases."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import Any

import pytest

CHASSIS = "--private-key=/etc/ovn/chassis.pem --certificate=/etc/ovn/chassis.pem --ca-cert=/etc/ovn/chassis-ca-cert.pem"
# Asks for the schema, as the first thing that a client does, and returns what comes back.
STRANGER = """
import socket, ssl
from concurrent.futures import ThreadPoolExecutor
def answer(address, port, encrypted):
    try:
        with socket.create_connection((address, port), timeout=10) as plain:
            stream = plain
            if encrypted:
                context = ssl.create_default_context(cafile="/etc/ovn/chassis-ca-cert.pem")
                context.check_hostname = False
                stream = context.wrap_socket(plain)
            stream.sendall(json.dumps({"method": "list_dbs", "params": [], "id": 0}).encode())
            return stream.recv(4096).decode()
    except (OSError, ssl.SSLError) as error:
        return ""
# Each that the firewall drops takes ten seconds.
with ThreadPoolExecutor(len(ARGUMENTS[0])) as pool:
    print(json.dumps(list(pool.map(lambda one: answer(*one), ARGUMENTS[0]))))
"""


@pytest.fixture
def chassis(site: Any, host: Any, first_controller: Any) -> Callable[[str], Any]:
    """Run a command of ovn-sbctl with the key of the compute."""
    target = f"ssl:{first_controller.management_address}:16642"
    # With several controllers, a relay answers, which leads nothing.
    options = f"--timeout=20 --no-leader-only --db={target} {CHASSIS}"
    return lambda command: host.run(f"ovn-sbctl {options} {command}")


def own_name(host: Any) -> str:
    return str(json.loads(host.check_output("ovs-vsctl get Open_vSwitch . external_ids:system-id")))


def is_refused(done: Any) -> bool:
    return done.rc != 0 and "permission error" in done.stderr + done.stdout


@pytest.mark.on("compute")
def test_a_compute_writes_its_own_chassis(host: Any, chassis: Callable[[str], Any]) -> None:
    name = own_name(host)
    done = chassis(f"set Chassis {name} external_ids:kilonova-test=here")
    assert done.rc == 0, done.stderr
    done = chassis(f"remove Chassis {name} external_ids kilonova-test")
    assert done.rc == 0, done.stderr


@pytest.mark.on("compute")
def test_a_compute_writes_no_other_chassis(host: Any, chassis: Callable[[str], Any]) -> None:
    """That of another host, where there is one, and one that it makes up."""
    names = shlex.split(chassis("--bare --columns=name list Chassis").stdout)
    assert own_name(host) in names
    for name in set(names) - {own_name(host)}:
        assert is_refused(chassis(f"set Chassis {name} external_ids:kilonova-test=here"))
        assert is_refused(chassis(f"set Chassis_Private {name} external_ids:kilonova-test=here"))
        assert is_refused(chassis(f"chassis-del {name}"))
    assert is_refused(chassis("create Chassis name=made-up"))


@pytest.mark.on("compute")
def test_a_compute_writes_no_ports_and_flows(chassis: Callable[[str], Any]) -> None:
    """It may bind any port, because guests move, but not say which addresses a port has."""
    port = chassis("--bare --columns=logical_port list Port_Binding").stdout.split()[0]
    assert is_refused(chassis(f"set Port_Binding {port} mac=made-up"))
    assert is_refused(chassis(f"destroy Port_Binding {port}"))
    assert is_refused(chassis("create Address_Set name=made_up"))
    permission = chassis("--bare --columns=_uuid list RBAC_Permission").stdout.split()[0]
    assert is_refused(chassis(f"destroy RBAC_Permission {permission}"))


@pytest.mark.on("controller", "compute")
def test_a_stranger_gets_nothing(site: Any, first_controller: Any, run_python: Callable[..., Any]) -> None:
    """Without a certificate, and where the databases were before they had TLS."""
    address = first_controller.management_address
    ports = [(where, port, True) for where in (address, "127.0.0.1") for port in (16641, 16642, 16643)]
    ports += [("127.0.0.1", port, True) for port in (16651, 16653)]
    ports += [(where, port, False) for where in (address, "127.0.0.1") for port in (6641, 6642)]
    assert run_python(STRANGER, ports) == [""] * len(ports)


def test_a_chassis_does_not_reach_the_northbound_database(site: Any, host: Any) -> None:
    target = f"ssl:{site.management_address if site.clustered else '127.0.0.1'}:16641"
    options = f"--timeout=5 --no-leader-only --db={target}"
    done = host.run(f"ovn-nbctl {options} {CHASSIS} show")
    assert done.rc != 0
    done = host.run(
        f"ovn-nbctl {options} --private-key=/etc/neutron/ovn-key.pem "
        "--certificate=/etc/neutron/ovn-cert.pem --ca-cert=/etc/neutron/ovn-ca-cert.pem show"
    )
    assert done.rc == 0, done.stderr
