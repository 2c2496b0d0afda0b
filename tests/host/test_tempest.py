# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""OpenStack's own tests of volumes: those of Debian's Tempest that the interoperability guideline requires.

Only in clouds with a store. Tempest is installed on the first controller for the time of the tests, and makes projects,
users, volumes and images of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REQUIRED = Path(__file__).with_name("interop_volumes.txt")
# Prints the names of the packages that were installed.
INSTALL = """
import os, re, subprocess
command = ["apt-get", "--yes", "--no-install-recommends", "install", "tempest"]
environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
plan = subprocess.run([*command, "--dry-run"], check=True, capture_output=True, text=True, env=environment).stdout
subprocess.run(command, check=True, capture_output=True, env=environment)
print(json.dumps(re.findall(r"^Inst (\\S+)", plan, re.MULTILINE)))
"""
# Runs the tests with these identifiers. Prints, by identifier: the result, and why.
RUN = """
import re, subprocess, tempfile
from configparser import RawConfigParser
from pathlib import Path

settings = cloud.config
login = settings.get_auth_args()
my_vm = nova.find_server(ARGUMENTS[1], details=True)
image = my_vm.image.id
wanted = set(ARGUMENTS[0])
# Spaces at an end stay in quotes, and a dollar is doubled.
password = '"' + login["password"].replace("$", "$$") + '"'

with tempfile.TemporaryDirectory() as directory:
    place = Path(directory, "tempest")
    init = ["tempest", "init", "--workspace-path", f"{directory}/workspaces.yaml", str(place)]
    subprocess.run(init, check=True, capture_output=True)
    options = RawConfigParser()
    options.read_dict({
        "auth": {
            "admin_username": login["username"], "admin_password": password,
            "admin_project_name": login["project_name"], "admin_domain_name": "Default",
            "use_dynamic_credentials": "true", "create_isolated_networks": "false", "tempest_roles": "member",
        },
        "identity": {
            "uri_v3": login["auth_url"].rstrip("/").removesuffix("/v3") + "/v3", "auth_version": "v3",
            "region": settings.region_name, "ca_certificates_file": settings.config["cacert"],
        },
        "compute": {"image_ref": image, "image_ref_alt": image, "flavor_ref": nova.find_flavor("m1.tiny").id},
        "network": {"public_network_id": ""},
        "oslo_concurrency": {"lock_path": f"{directory}/locks"},
        "service_available": {"cinder": "true", "glance": "true", "nova": "true", "neutron": "true", "swift": "false",
                              "horizon": "false"},
        "validation": {"run_validation": "false"},
        "volume": {"catalog_type": "volumev3", "volume_size": "1"},
    })
    path = place / "etc" / "tempest.conf"
    path.touch(mode=0o600)
    with path.open("w") as file:
        options.write(file)
    listed = subprocess.run(["stestr", "list"], cwd=place, check=True, capture_output=True, text=True).stdout
    names = {}
    for name in listed.split("\\n"):
        for identity in re.findall(r"id-[0-9a-f-]{36}", name):
            names.setdefault(identity, name)
    chosen = [names[identity] for identity in sorted(wanted & names.keys())]
    (place / "list").write_text("\\n".join(chosen) + "\\n")
    # A failure is told by its test.
    done = subprocess.run(["stestr", "run", "--serial", "--load-list", "list"], cwd=place, check=False,
                          capture_output=True, text=True)
    last = subprocess.run(["stestr", "last", "--subunit"], cwd=place, check=False, capture_output=True).stdout

import io
import subunit, testtools
results = {}
def note(test):
    text = "\\n".join(part.as_text() for name, part in test["details"].items() if name in ("traceback", "reason"))
    for identity in re.findall(r"id-[0-9a-f-]{36}", test["id"]):
        results[identity] = [test["status"], text]
    # A fixture of a whole class.
    if test["id"].startswith(("setUpClass", "tearDownClass")):
        results[test["id"]] = [test["status"], text]
collect = testtools.StreamToDict(note)
collect.startTestRun()
subunit.ByteStreamToStreamResult(io.BytesIO(last), non_subunit_name="output").run(collect)
collect.stopTestRun()
output = done.stdout[-3000:] + done.stderr[-1000:]
print(json.dumps({"listed": sorted(wanted & names.keys()), "results": results, "output": output}))
"""


def required() -> list[tuple[str, str, bool]]:
    """Return identifier and name of each test, and whether Tempest has removed it."""
    rows = [line.split() for line in REQUIRED.read_text().splitlines() if line and not line.startswith("#")]
    return [(row[0], row[1], row[2:] == ["removed"]) for row in rows]


@pytest.fixture(scope="module")
def tempest(on_cloud: Callable[..., Any], run_python_of: Callable[..., Any], first_controller: Any) -> Iterator[Any]:
    """What the tests ended with."""
    if not on_cloud('print(json.dumps(bool(cloud.endpoint_for("block-storage"))))'):
        pytest.skip("the cloud has no store")
    host = first_controller.connect()
    packages = run_python_of(host)(INSTALL)
    try:
        yield on_cloud(RUN, [identity for identity, _, _ in required()], first_controller.server)
    finally:
        if packages:
            host.check_output(f"DEBIAN_FRONTEND=noninteractive apt-get --yes purge {' '.join(packages)}")


@pytest.mark.parametrize(("identity", "name", "removed"), required(), ids=[name for _, name, _ in required()])
def test_volumes(tempest: dict[str, Any], identity: str, name: str, removed: bool) -> None:
    if identity not in tempest["listed"]:
        assert removed, f"Tempest has no test {name} ({identity})"
        pytest.skip("removed from Tempest, which the guideline knows")
    class_name = name.rpartition(".")[0].rpartition(".")[2]
    shared = [value for key, value in tempest["results"].items() if key.startswith("setUpClass") and class_name in key]
    status, why = tempest["results"].get(identity) or (shared or [["missing", tempest["output"]]])[0]
    if status == "skip":
        pytest.skip(why)
    assert status == "success", why
