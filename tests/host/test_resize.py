# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A guest can be resized in a cloud with one compute, where it must stay on its host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

NAME = "kn-resize"
MEMORY_MIB = 576
REMOVE = """
if (server := nova.find_server(ARGUMENTS[0])):
    nova.delete_server(server)
    nova.wait_for_delete(server)
if (flavor := nova.find_flavor(ARGUMENTS[0])):
    nova.delete_flavor(flavor)
"""
# Nova would wait a minute for a guest that is switched off while it boots.
CREATE = """
name, memory = ARGUMENTS
nova.create_flavor(name=name, ram=memory, vcpus=1, disk=1)
server = nova.create_server(
    name=name, flavor_id=nova.find_flavor("m1.tiny").id, image_id=nova.find_server("my_vm", details=True).image.id,
    networks=[{"uuid": cloud.network.find_network("nova").id}])
server = settled(server)
ready(server)
print(json.dumps([server.flavor.name, server.compute_host]))
"""
RESIZE = """
name, = ARGUMENTS
server = nova.find_server(name)
nova.resize_server(server, nova.find_flavor(name))
settled(server, "VERIFY_RESIZE")
nova.confirm_server_resize(server)
server = settled(server)
print(json.dumps([server.flavor.name, server.compute_host, server.instance_name]))
"""


@pytest.fixture
def small_server(on_cloud: Callable[..., Any], hosts_sites: tuple[Any, ...]) -> Iterator[list[str]]:
    """The flavor and the compute of a running server."""
    if len([site for site in hosts_sites if "compute" in site.groups]) != 1:
        pytest.skip("needs a cloud with one compute")
    on_cloud(REMOVE, NAME)
    try:
        yield on_cloud(CREATE, NAME, MEMORY_MIB)
    finally:
        on_cloud(REMOVE, NAME)


def test_resize_on_the_only_compute(host: Any, small_server: list[str], on_cloud: Callable[..., Any]) -> None:
    """The resized guest has the new flavor in Nova and its memory in libvirt, on the same compute."""
    flavor, compute, instance = on_cloud(RESIZE, NAME)
    assert small_server == ["m1.tiny", compute]
    assert flavor == NAME
    assert f"{MEMORY_MIB * 1024} KiB" in host.check_output("virsh dominfo %s", instance)
