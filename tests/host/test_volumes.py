# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Volumes of real guests: what is written in one guest is read in another, from copies, backups and images.

Only in clouds with a store.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.host.test_least_rights import AS_SERVICE, COMPUTE_FILES, FORBIDDEN

GIB = 1024**3
NOT_FOUND = 404
SECTOR = 512
# On the first controller.
LOGIN = (
    "ssh -n -i /root/.ssh/kilonova_id_ed25519 -o BatchMode=yes -o ConnectTimeout=10 -o StrictHostKeyChecking=no"
    " -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
)
# Before scripts that use volumes.
VOLUMES = """
storage = cloud.block_storage
storage.default_microversion = "3.70"
PREFIX = "kn-volumes"

def api(method, path, body=None, connection=cloud, **more):
    answer = connection.block_storage.request(path, method, json=body, microversion="3.70", **more)
    if answer.status_code >= 400:
        raise SystemExit(f"{method} {path}: {answer.status_code} {answer.text}")
    return answer.json() if answer.content else {}

def one(kind, identity, connection=cloud):
    return api("GET", f"/{kind}s/{identity}", connection=connection)[kind]

def until(kind, identity, status="available", connection=cloud):
    def look():
        now = one(kind, identity, connection)
        if now["status"].startswith("error"):
            raise SystemExit(f"{kind} {now['name']} is {now['status']}: {now.get('fail_reason')}")
        return now if now["status"] == status else None
    return wait(look, 300, f"{kind} {identity} is {status}")

def create(name, size=1, connection=cloud, **more):
    body = {"name": f"{PREFIX}-{name}", "size": size, **more}
    made = api("POST", "/volumes", {"volume": body}, connection=connection)["volume"]
    return until("volume", made["id"], connection=connection)

def attach(server, volume):
    nova.create_volume_attachment(nova.get_server(server), volume_id=volume)
    return until("volume", volume, "in-use")["attachments"][0]["device"]

def detach(server, volume):
    nova.delete_volume_attachment(nova.get_server(server), nova_volume(server, volume))
    until("volume", volume)

def nova_volume(server, volume):
    return next(one for one in nova.volume_attachments(nova.get_server(server)) if one.volume_id == volume)
"""
REMOVE = """
for server in list(nova.servers(name=f"^{PREFIX}")):
    nova.delete_server(server)
    nova.wait_for_delete(server, wait=300)
for server in [one for one in nova.servers() if not one.name.startswith(PREFIX)]:
    for volume in [one.volume_id for one in nova.volume_attachments(server)]:
        if one("volume", volume)["name"].startswith(PREFIX):
            detach(server.id, volume)
for image in cloud.image.images():
    if (image.name or "").startswith(PREFIX):
        cloud.image.delete_image(image)

def listed(kind):
    found = api("GET", f"/{kind}s/detail?all_tenants=1")[f"{kind}s"]
    return [thing for thing in found if (thing["name"] or "").startswith(PREFIX)]

# Volumes may depend on snapshots, and backups on each other: what is refused is asked for again.
def all_gone():
    found = [(kind, thing) for kind in ("backup", "snapshot", "volume") for thing in listed(kind)]
    for kind, thing in found:
        if thing["status"] in ("available", "error", "error_restoring", "error_extending", "error_deleting"):
            storage.request(f"/{kind}s/{thing['id']}", "DELETE", microversion="3.70")
    return not found

wait(all_gone, 300, "the removal of volumes")
for name in ("a", "b"):
    if (user := cloud.identity.find_user(f"{PREFIX}-{name}")):
        cloud.identity.delete_user(user)
    if (project := cloud.identity.find_project(f"{PREFIX}-{name}")):
        cloud.identity.delete_project(project)
"""


@pytest.fixture(scope="module")
def on_volumes(on_cloud: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Run a script after ``VOLUMES``; everything that it makes is removed at the end."""
    if not on_cloud('print(json.dumps(bool(cloud.endpoint_for("block-storage"))))'):
        pytest.skip("the cloud has no store")
    on_cloud(VOLUMES + REMOVE)
    try:
        yield lambda script, *arguments: on_cloud(VOLUMES + script, *arguments)
    finally:
        on_cloud(VOLUMES + REMOVE)


@dataclass
class Guest:
    """A guest that is reached from a controller by ssh."""

    server: str
    address: str
    controller: Any
    user: str

    def run(self, command: str) -> str:
        done = self.controller.run(f"{LOGIN} {self.user}@{self.address} {shlex.quote(command)}")
        assert done.rc == 0, f"{command}: {done.stdout}{done.stderr}"
        return str(done.stdout).strip()

    def disk_of(self, volume: str) -> str:
        """Return the name of the disk with a volume, empty without one. QEMU cuts serial numbers."""
        is_it = f'[ "$(cat $disk/serial)" = {volume[:20]} ]'
        return self.run(f"for disk in /sys/block/vd*; do {is_it} && echo ${{disk##*/}}; done; true")

    def sees(self, volume: str, size: int) -> str:
        """Wait until the guest sees a disk of this size, and return its name."""
        deadline = time.monotonic() + 60
        while True:
            disk = self.disk_of(volume)
            found = int(self.run(f"cat /sys/block/{disk}/size")) * SECTOR if disk else 0
            if found == size:
                return disk
            assert time.monotonic() < deadline, f"disk {disk!r} of {self.address} has {found} bytes, not {size}"
            time.sleep(1)

    def write(self, volume: str, text: str) -> None:
        self.run(f"echo {text} | sudo dd of=/dev/{self.disk_of(volume)} bs={SECTOR} conv=sync,fsync 2>/dev/null")

    def read(self, volume: str) -> str:
        return self.run(f"sudo dd if=/dev/{self.disk_of(volume)} bs={SECTOR} count=1 2>/dev/null | tr -d '\\000'")


@pytest.fixture(scope="module")
def guest(on_volumes: Callable[..., Any], gateway: Any) -> Guest:
    """The first guest of the cloud."""
    script = "server = nova.find_server(ARGUMENTS[0], details=True)\nprint(json.dumps([server.id, address(server)]))"
    server, address = on_volumes(script, gateway.server)
    return Guest(server, address, gateway.connect(), gateway.guest_user)


@pytest.fixture(scope="module")
def parent_of(first_controller: Any) -> Callable[[str], dict[str, str]]:
    """Ask the store what a volume is a clone of."""

    def look(volume: str) -> dict[str, str]:
        command = f"rbd --id cinder info --format json volumes/volume-{volume}"
        return dict(json.loads(first_controller.connect().check_output(command)).get("parent", {}))

    return look


@pytest.fixture(scope="module")
def read_in(on_volumes: Callable[..., Any], guest: Guest) -> Callable[[str], str]:
    """Attach a volume to the first guest, and return what was written into it."""

    def read(volume: str) -> str:
        on_volumes("attach(*ARGUMENTS)", guest.server, volume)
        size = on_volumes('print(json.dumps(one("volume", ARGUMENTS[0])["size"]))', volume)
        guest.sees(volume, size * GIB)
        text = guest.read(volume)
        on_volumes("detach(*ARGUMENTS)", guest.server, volume)
        return text

    return read


@pytest.fixture(scope="module")
def written(on_volumes: Callable[..., Any], guest: Guest) -> dict[str, str]:
    """A volume that grew to 2 GiB while it was attached and holds "second", and a snapshot that holds "first"."""
    volume = on_volumes('print(json.dumps(create("data")["id"]))')
    on_volumes("attach(*ARGUMENTS)", guest.server, volume)
    guest.sees(volume, GIB)
    guest.write(volume, "first")
    extend = """
api("POST", f"/volumes/{ARGUMENTS[0]}/action", {"os-extend": {"new_size": 2}})
wait(lambda: one("volume", ARGUMENTS[0])["size"] == 2, 120, "the volume has grown")
until("volume", ARGUMENTS[0], "in-use")
"""
    on_volumes(extend, volume)
    guest.sees(volume, 2 * GIB)
    snapshot = """
body = {"name": f"{PREFIX}-data", "volume_id": ARGUMENTS[0], "force": True}
print(json.dumps(until("snapshot", api("POST", "/snapshots", {"snapshot": body})["snapshot"]["id"])["id"]))
"""
    made = on_volumes(snapshot, volume)
    guest.write(volume, "second")
    on_volumes("detach(*ARGUMENTS)", guest.server, volume)
    assert guest.disk_of(volume) == ""
    return {"volume": volume, "snapshot": made}


@pytest.fixture(scope="module")
def booted(on_volumes: Callable[..., Any], first_controller: Any, guest: Guest) -> dict[str, Any]:
    """A guest that booted from a volume, which was made from the image of the first guest."""
    script = """
image = nova.get_server(ARGUMENTS[0]).image.id
volume = create("root", imageRef=image)
server = nova.create_server(
    name=f"{PREFIX}-guest", flavor_id=nova.find_flavor("m1.tiny").id, key_name=nova.get_server(ARGUMENTS[0]).key_name,
    networks=[{"uuid": cloud.network.find_network("nova").id}],
    block_device_mapping_v2=[{"boot_index": 0, "uuid": volume["id"], "source_type": "volume",
                              "destination_type": "volume"}])
server = settled(server)
ready(server)
print(json.dumps({"server": server.id, "address": address(server), "volume": volume["id"], "image": image,
                  "bootable": volume["bootable"], "format": cloud.image.get_image(image).disk_format}))
"""
    found: dict[str, Any] = on_volumes(script, guest.server)
    found["guest"] = Guest(found["server"], found["address"], guest.controller, guest.user)
    return found


def test_a_volume_grows_under_a_guest(written: dict[str, str], read_in: Callable[[str], str]) -> None:
    assert read_in(written["volume"]) == "second"


def test_a_guest_boots_from_a_volume(booted: dict[str, Any]) -> None:
    assert booted["bootable"] == "true"
    root = booted["guest"].disk_of(booted["volume"])
    assert root == "vda"


def test_a_volume_from_an_image_is_a_clone(booted: dict[str, Any], parent_of: Callable[..., dict[str, str]]) -> None:
    assert booted["format"] == "raw"
    parent = parent_of(booted["volume"])
    assert (parent["pool"], parent["image"], parent["snapshot"]) == ("images", booted["image"], "snap")


def test_another_guest_reads_a_volume(
    on_volumes: Callable[..., Any], written: dict[str, str], booted: dict[str, Any]
) -> None:
    on_volumes("attach(*ARGUMENTS)", booted["server"], written["volume"])
    booted["guest"].sees(written["volume"], 2 * GIB)
    assert booted["guest"].read(written["volume"]) == "second"
    on_volumes("detach(*ARGUMENTS)", booted["server"], written["volume"])


def test_copies(
    on_volumes: Callable[..., Any],
    written: dict[str, str],
    read_in: Callable[[str], str],
    parent_of: Callable[..., dict[str, str]],
) -> None:
    script = """
print(json.dumps([create("of-snapshot", 2, snapshot_id=ARGUMENTS[1])["id"],
                  create("of-volume", 2, source_volid=ARGUMENTS[0])["id"]]))
"""
    of_snapshot, of_volume = on_volumes(script, written["volume"], written["snapshot"])
    assert (read_in(of_snapshot), read_in(of_volume)) == ("first", "second")
    for copy in (of_snapshot, of_volume):
        assert parent_of(copy)["image"] == f"volume-{written['volume']}"


def test_backups(
    on_volumes: Callable[..., Any], written: dict[str, str], guest: Guest, read_in: Callable[[str], str]
) -> None:
    """A full one and an incremental one, each restored into a new volume."""
    backup = """
volume, name, incremental = ARGUMENTS
body = {"name": f"{PREFIX}-{name}", "volume_id": volume, "incremental": incremental}
made = until("backup", api("POST", "/backups", {"backup": body})["backup"]["id"])
print(json.dumps([made["id"], made["is_incremental"]]))
"""
    full = on_volumes(backup, written["volume"], "full", False)
    on_volumes("attach(*ARGUMENTS)", guest.server, written["volume"])
    guest.sees(written["volume"], 2 * GIB)
    guest.write(written["volume"], "third")
    on_volumes("detach(*ARGUMENTS)", guest.server, written["volume"])
    later = on_volumes(backup, written["volume"], "later", True)
    assert (full[1], later[1]) == (False, True)
    restore = """
backup, name = ARGUMENTS
made = api("POST", f"/backups/{backup}/restore", {"restore": {"name": f"{PREFIX}-{name}"}})["restore"]["volume_id"]
until("volume", made)
until("backup", backup)
print(json.dumps(made))
"""
    restored = [
        on_volumes(restore, identity, name) for identity, name in ((full[0], "of-full"), (later[0], "of-later"))
    ]
    assert [read_in(volume) for volume in restored] == ["second", "third"]


@pytest.mark.parametrize("disk_format", ["raw", "qcow2"])
def test_an_image_of_a_volume(
    on_volumes: Callable[..., Any],
    written: dict[str, str],
    parent_of: Callable[..., dict[str, str]],
    read_in: Callable[[str], str],
    disk_format: str,
) -> None:
    """Of a volume that has the snapshot's text. One that Cinder has to convert is no clone."""
    script = """
snapshot, disk_format = ARGUMENTS
source = create(f"for-{disk_format}", 2, snapshot_id=snapshot)["id"]
body = {"image_name": f"{PREFIX}-{disk_format}", "container_format": "bare", "disk_format": disk_format}
answer = api("POST", f"/volumes/{source}/action", {"os-volume_upload_image": body})
image = answer["os-volume_upload_image"]["image_id"]
wait(lambda: cloud.image.get_image(image).status == "active", 300, "the image is active")
until("volume", source)
print(json.dumps([image, create(f"of-{disk_format}", 2, imageRef=image)["id"]]))
"""
    image, volume = on_volumes(script, written["snapshot"], disk_format)
    assert parent_of(volume).get("image", "") == (image if disk_format == "raw" else "")
    assert read_in(volume) == "first"


def test_a_volume_changes_its_project(on_volumes: Callable[..., Any]) -> None:
    """Nobody else reads it, before or after; and the other project does afterwards."""
    script = """
import secrets
password = secrets.token_hex(16)
projects, people = [], []
for name in ("a", "b"):
    project = cloud.identity.create_project(name=f"{PREFIX}-{name}", domain_id="default")
    user = cloud.identity.create_user(name=f"{PREFIX}-{name}", password=password, domain_id="default")
    cloud.identity.assign_project_role_to_user(project, user, cloud.identity.find_role("member"))
    auth = {"auth_url": cloud.config.get_auth_args()["auth_url"], "username": user.name, "password": password,
            "project_name": project.name, "user_domain_name": "Default", "project_domain_name": "Default"}
    options = {"cacert": cloud.config.config.get("cacert"), "region_name": cloud.config.region_name}
    people.append(openstack.connect(auth=auth, load_yaml_config=False, load_envvars=False, **options))
a, b = people
volume = create("moved", connection=a)["id"]

def status(connection):
    return connection.block_storage.request(f"/volumes/{volume}", "GET").status_code

before = [status(a), status(b)]
body = {"transfer": {"volume_id": volume, "name": f"{PREFIX}-moved"}}
transfer = api("POST", "/volume-transfers", body, connection=a)["transfer"]
body = {"accept": {"auth_key": transfer["auth_key"]}}
api("POST", f"/volume-transfers/{transfer['id']}/accept", body, connection=b)
until("volume", volume, connection=b)
print(json.dumps([before, [status(a), status(b)]]))
b.block_storage.request(f"/volumes/{volume}", "DELETE")
"""
    assert on_volumes(script) == [[200, 404], [404, 200]]


def test_services_of_cinder_are_up(on_volumes: Callable[..., Any], hosts_sites: tuple[Any, ...]) -> None:
    script = """
print(json.dumps([[one["binary"], one["state"], one["host"]] for one in api("GET", "/os-services")["services"]]))
"""
    found = on_volumes(script)
    assert {binary for binary, _, _ in found} == {"cinder-scheduler", "cinder-volume", "cinder-backup"}
    assert {state for _, state, _ in found} == {"up"}
    wanted = {f"{site.name}@ceph" for site in hosts_sites if "controller" in site.groups}
    assert {host for binary, _, host in found if binary == "cinder-volume"} == wanted


@pytest.mark.on("compute")
def test_a_compute_opens_no_volume_by_itself(
    on_volumes: Callable[..., Any], run_python: Callable[..., Any], written: dict[str, str]
) -> None:
    volume = written["volume"]
    calls: list[tuple[Any, ...]] = [
        ("volumev3", "GET", "/volumes"),
        ("volumev3", "GET", "/volumes/detail?all_tenants=1"),
        ("volumev3", "GET", "/attachments?all_tenants=1"),
        ("volumev3", "POST", "/volumes", {"volume": {"size": 1}}),
        ("volumev3", "POST", f"/volumes/{volume}/action", {"os-initialize_connection": {"connector": {}}}),
        ("volumev3", "DELETE", f"/volumes/{volume}"),
        ("volumev3", "GET", "/os-services"),
        ("volumev3", "GET", "/backups"),
    ]
    found = run_python(AS_SERVICE, COMPUTE_FILES, "service_user", calls)["calls"]
    refused = (FORBIDDEN, NOT_FOUND)
    assert [call[1:3] for call, status in zip(calls, found, strict=True) if status not in refused] == []


@pytest.mark.on("controller")
def test_no_process_of_cinder_is_root_or_may_become_root(host: Any, on_volumes: Callable[..., Any]) -> None:
    for unit in ("cinder-api", "cinder-scheduler", "cinder-volume", "cinder-backup"):
        group = host.check_output(f"systemctl show --property=ControlGroup --value {unit}")
        pids = host.check_output(
            f"cat /sys/fs/cgroup{group}/cgroup.procs /sys/fs/cgroup/systemd{group}/cgroup.procs || true"
        )
        assert pids.split(), unit
        for pid in pids.split():
            status = dict(
                line.split(":\t", 1)
                for line in host.file(f"/proc/{pid}/status").content_string.splitlines()
                if ":\t" in line
            )
            owner = host.user("cinder").uid
            assert status["Uid"].split() == [str(owner)] * 4, f"{unit} {pid}"
            assert (status["NoNewPrivs"], int(status["CapBnd"], 16)) == ("1", 0), f"{unit} {pid}"
