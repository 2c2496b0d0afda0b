# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A guest can be resized in a cloud with one compute, where it must stay on its host."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

SERVER = "kn-resize"
FLAVOR = "kn-resize-576"
MEMORY_MIB = 576
WAIT_SECONDS = 300


def openstack(host: Any, command: str) -> str:
    """Return the output of an openstack command that must succeed."""
    done = host.run(f"openstack --os-cloud admin {command}")
    assert done.rc == 0, f"{command}: {done.stderr}"
    return str(done.stdout)


def wait_for(host: Any, status: str) -> dict[str, Any]:
    """Wait until the server has a status and no task, and return it."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        server: dict[str, Any] = json.loads(openstack(host, f"server show {SERVER} -f json"))
        if server["status"] == status and server["OS-EXT-STS:task_state"] in (None, "None", ""):
            return server
        assert server["status"] != "ERROR", server.get("fault")
        assert time.monotonic() < deadline, f"{server['status']} instead of {status} after {WAIT_SECONDS} s"
        time.sleep(2)


def remove(host: Any) -> None:
    """Remove the server and its flavor, if they exist."""
    if SERVER in openstack(host, "server list -f value -c Name").split():
        openstack(host, f"server delete --wait {SERVER}")
    if FLAVOR in openstack(host, "flavor list --all -f value -c Name").split():
        openstack(host, f"flavor delete {FLAVOR}")


@pytest.fixture
def small_server(host: Any, hosts_sites: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """A running server with the flavor m1.tiny."""
    if len([site for site in hosts_sites if "compute" in site.groups]) != 1:
        pytest.skip("needs a cloud with one compute")
    remove(host)
    try:
        openstack(host, f"flavor create --ram {MEMORY_MIB} --vcpus 1 --disk 1 {FLAVOR}")
        image = openstack(host, "image list --status active --limit 1 -f value -c ID").strip()
        openstack(host, f"server create --image {image} --flavor m1.tiny --network nova {SERVER}")
        yield wait_for(host, "ACTIVE")
    finally:
        remove(host)


def test_resize_on_the_only_compute(host: Any, small_server: dict[str, Any]) -> None:
    """The resized guest has the new flavor in Nova and its memory in libvirt, on the same compute."""
    openstack(host, f"server resize --flavor {FLAVOR} {SERVER}")
    wait_for(host, "VERIFY_RESIZE")
    openstack(host, f"server resize confirm {SERVER}")
    resized = wait_for(host, "ACTIVE")
    assert "m1.tiny" in str(small_server["flavor"])
    assert FLAVOR in str(resized["flavor"])
    assert resized["OS-EXT-SRV-ATTR:host"] == small_server["OS-EXT-SRV-ATTR:host"]
    information = host.check_output("virsh dominfo %s", resized["OS-EXT-SRV-ATTR:instance_name"])
    assert f"{MEMORY_MIB * 1024} KiB" in information
