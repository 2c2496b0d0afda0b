# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Users' commands on the controller: those of the original exercise, in their present form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from ansible.module_utils.kilonova.consoles.websocket import WebSocket


def openstack(host: Any, command: str) -> Any:
    """Return the JSON output of an openstack command."""
    done = host.run(f". /root/openrc && openstack {command} -f json")
    assert done.rc == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def server(site: Any, host: Any) -> dict[str, Any]:
    found: dict[str, Any] = openstack(host, f"server show {site.server}")
    return found


def test_service_list(host: Any) -> None:
    services = openstack(host, "compute service list")
    assert {"nova-conductor", "nova-scheduler", "nova-compute"} == {one["Binary"] for one in services}
    assert {(one["Status"], one["State"]) for one in services} == {("enabled", "up")}


def test_hypervisors_are_the_computes(host: Any, hosts_sites: Any) -> None:
    listed = openstack(host, "hypervisor list")
    assert len(listed) == len([site for site in hosts_sites if "compute" in site.groups])


def test_catalog_goes_through_the_api_address(site: Any, host: Any) -> None:
    endpoints = openstack(host, "endpoint list")
    assert {one["Service Type"] for one in endpoints} == {"identity", "image", "placement", "compute", "network"}
    assert [one["URL"] for one in endpoints if not one["URL"].startswith(f"https://{site.api_address}:")] == []


def test_service_users_are_in_the_project_services(host: Any) -> None:
    rows = openstack(host, "role assignment list --names --project services")
    roles: dict[str, set[str]] = {}
    for row in rows:
        # A rotation changes to the second name, and back.
        roles.setdefault(row["User"].partition("@")[0].removesuffix("2"), set()).add(row["Role"])
    assert {"glance", "neutron", "nova", "placement"} <= set(roles)
    assert roles["nova"] == {"service"}


def test_flavors_have_their_old_numbers(host: Any) -> None:
    flavors = {one["Name"]: one["ID"] for one in openstack(host, "flavor list")}
    expected = {"m1.tiny": "1", "m1.small": "2", "m1.medium": "3", "m1.large": "4", "m1.xlarge": "5"}
    assert {name: flavors.get(name) for name in expected} == expected


def test_server_is_active(server: dict[str, Any]) -> None:
    assert server["status"] == "ACTIVE"


def test_clouds_yaml_works_without_openrc(site: Any, host: Any) -> None:
    names = host.check_output("openstack --os-cloud admin server list -f value -c Name").split()
    assert site.server in names


def test_nova_command_is_there(site: Any, host: Any) -> None:
    done = host.run(". /root/openrc && nova list")
    assert done.rc == 0, done.stderr
    assert site.server in done.stdout


def test_documentation_is_installed(host: Any) -> None:
    assert host.package("nova-doc").is_installed


def test_server_pings(gateway: Any, server: dict[str, Any]) -> None:
    address = next(iter(server["addresses"].values()))[0]
    assert gateway.connect().run("ping -n -q -c 2 -W 2 -I %s %s", gateway.bridge, address).rc == 0


def test_virsh_lists_the_server(hosts_sites: Any, server: dict[str, Any]) -> None:
    domain = server["OS-EXT-SRV-ATTR:instance_name"]
    lists = [site.connect().check_output("virsh list --name") for site in hosts_sites if "compute" in site.groups]
    assert [domain in names.split() for names in lists].count(True) == 1


def test_console_page_is_served(site: Any, host: Any) -> None:
    console = openstack(host, f"console url show --novnc {site.server}")
    assert console["url"].startswith(f"https://{site.api_address}:6080/vnc.html?")
    # The page connects by itself, with the token in the path of the websocket.
    query = parse_qs(urlsplit(console["url"]).query)
    assert (query["autoconnect"], query["resize"]) == (["true"], ["scale"])
    assert query["path"][0].startswith("?token=")
    script = "import sys, ssl, urllib.request as u; c = ssl.create_default_context(cafile=sys.argv[2]); "
    script += "print(u.urlopen(sys.argv[1], context=c).read())"
    done = host.run("/usr/bin/python3 -c %s %s %s", script, console["url"], site.authority)
    assert "noVNC" in done.stdout, done.stderr


def test_serial_console_is_a_secure_websocket(site: Any, host: Any, tmp_path: Path) -> None:
    console = openstack(host, f"console url show --serial {site.server}")
    assert console["url"].startswith(f"wss://{site.api_address}:6083/?token=")
    authority = tmp_path / "ca.pem"
    authority.write_text(host.file(site.authority).content_string)
    # From this computer, as a user's.
    origin = f"https://{site.api_address}:6083"
    with WebSocket(console["url"], subprotocols=["binary"], origin=origin, ca_file=str(authority)) as socket:
        socket.send(b"\n")
        said = b""
        while b"login:" not in said:
            message = socket.receive(timeout=60)
            assert message is not None, f"the proxy closed the connection after {said!r}"
            said += message
