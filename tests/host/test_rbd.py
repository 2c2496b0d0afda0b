# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Images and disks of guests in Ceph: clones instead of copies, that outlive hosts, with keys that open no more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

GIB = 1 << 30
NAME = "kn-rbd"
SNAPSHOT = f"{NAME}-snapshot"
KEYRING = "/etc/ceph/ceph.client.nova.keyring"
SSH = (
    "ssh -i /root/.ssh/kilonova_id_ed25519 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
    "-o LogLevel=ERROR -o ConnectTimeout=10"
)
FILE = "/root/kept"
REMOVE = """
for name in ARGUMENTS[0]:
    if (server := nova.find_server(name)):
        nova.delete_server(server)
        nova.wait_for_delete(server)
for image in list(cloud.image.images()):
    if image.name in ARGUMENTS[0]:
        cloud.image.delete_image(image)
"""
CREATE = """
name, image_name = ARGUMENTS
my_vm = nova.find_server("my_vm", details=True)
image = cloud.image.find_image(image_name).id if image_name else my_vm.image.id
server = nova.create_server(
    name=name, flavor_id=nova.find_flavor("m1.tiny").id, image_id=image, key_name=my_vm.key_name,
    networks=[{"uuid": cloud.network.find_network("nova").id}])
server = settled(server)
ready(server)
print(json.dumps({"id": server.id, "host": server.compute_host, "address": address(server)}))
"""
# The new flavor is larger in memory and disk.
COLD_MOVE = """
name, action = ARGUMENTS
server = nova.find_server(name, details=True)
if action == "resize":
    larger = nova.create_flavor(name=name, ram=server.flavor.ram + 64, vcpus=1, disk=server.flavor.disk + 1)
    nova.resize_server(server, larger)
else:
    nova.migrate_server(server)
settled(server.id, "VERIFY_RESIZE")
nova.confirm_server_resize(server)
server = settled(server.id)
# Nova would wait a minute for a guest that is switched off while it boots.
ready(server)
print(json.dumps(server.compute_host))
"""
REMOVE_FLAVOR = """
if (flavor := nova.find_flavor(ARGUMENTS[0])):
    nova.delete_flavor(flavor)
"""
DESCRIBE = """
server = nova.find_server(ARGUMENTS[0], details=True)
actions = [one.action for one in nova.server_actions(server)]
print(json.dumps({"id": server.id, "host": server.compute_host, "unshelved": "unshelve" in actions}))
"""
# Says whether libvirt's secret of a user is kept and has the key of its file, without showing either.
SECRET = """
import base64, libvirt, re
user, keyring = ARGUMENTS
key = re.search(r"key = (\\S+)", open(keyring).read()).group(1)
found = [one for one in libvirt.open("qemu:///system").listAllSecrets() if one.usageID() == user]
print(json.dumps([[base64.b64encode(one.value()).decode() == key, one.UUIDString(), "ephemeral='no'" in one.XMLDesc()]
                  for one in found]))
"""
# What a user without rights, in a project of its own, gets from Glance.
TENANT = """
import openstack, secrets
from openstack.exceptions import HttpException
name, = ARGUMENTS
identity, password = cloud.identity, secrets.token_hex(16)
project = identity.create_project(name=name, domain_id="default")
user = identity.create_user(name=name, domain_id="default", password=password, default_project_id=project.id)
identity.assign_project_role_to_user(project, user, identity.find_role("member"))
try:
    auth = dict(auth_url=cloud.config.get_auth_args()["auth_url"], username=name, password=password, project_name=name,
                user_domain_id="default", project_domain_id="default")
    tenant = openstack.connect(auth=auth, cacert=cloud.config.config.get("cacert"))
    image = tenant.image
    theirs = next(image.images(visibility="public"))
    place = theirs.direct_url or image.get(f"/images/{theirs.id}").json()["direct_url"]
    body = {"name": name, "disk_format": "raw", "container_format": "bare"}
    mine = image.post("/images", json=body).json()["id"]
    patch = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    location = {"url": place, "metadata": {}}
    answers = {
        "add": image.patch(f"/images/{mine}", json=[{"op": "add", "path": "/locations/-", "value": location}],
                           headers=patch).status_code,
        "replace": image.patch(f"/images/{mine}", json=[{"op": "replace", "path": "/locations", "value": [location]}],
                               headers=patch).status_code,
        "post": image.post(f"/images/{mine}/locations", json={"url": place}).status_code,
        "get": image.get(f"/images/{theirs.id}/locations").status_code,
        "status": image.get(f"/images/{mine}").json()["status"],
        "place": place,
    }
    image.delete_image(mine)
finally:
    identity.delete_user(user)
    identity.delete_project(project)
print(json.dumps(answers))
"""
IMPORT = """
import subprocess, tempfile
name, = ARGUMENTS
with tempfile.TemporaryDirectory() as directory:
    path = f"{directory}/image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"], check=True)
    image = cloud.image.create_image(name=name, filename=path, disk_format="qcow2", container_format="bare",
                                     use_import=True, allow_duplicates=True)
image = wait(lambda: (now := cloud.image.get_image(image.id)).status == "active" and now, 120, "the import")
seen = cloud.image.get(f"/images/{image.id}").json()
print(json.dumps({"format": seen["disk_format"], "store": seen["stores"], "place": seen["direct_url"]}))
"""


@pytest.fixture(autouse=True, scope="module")
def ceph(hosts_sites: tuple[Any, ...]) -> None:
    if not any(site.storage for site in hosts_sites):
        pytest.skip("a cloud without Ceph")


@pytest.fixture(scope="module")
def in_guest(gateway: Any) -> Callable[[str, str], str]:
    host = gateway.connect()

    def run(address: str, command: str) -> str:
        # testinfra takes status 255 of ssh for a failed connection to the host, and gives up.
        done = host.run(f"{SSH} guest@{address} '{command}' || exit 1")
        assert done.rc == 0, done.stdout + done.stderr
        return str(done.stdout)

    return run


@pytest.fixture(scope="module")
def compute_of(hosts_sites: tuple[Any, ...]) -> Callable[[str], Any]:
    return lambda name: next(site for site in hosts_sites if site.name == name).connect()


@pytest.fixture(scope="module")
def guest(on_cloud: Callable[..., Any], in_guest: Callable[[str, str], str]) -> Iterator[dict[str, Any]]:
    """A guest with a file that has reached the disk."""
    on_cloud(REMOVE, [NAME, SNAPSHOT])
    try:
        made = on_cloud(CREATE, NAME, "")
        in_guest(made["address"], f'sudo sh -c "echo kept > {FILE}; sync"')
        yield made
    finally:
        on_cloud(REMOVE, [NAME, SNAPSHOT])


def info(host: Any, identity: str) -> dict[str, Any]:
    return dict(json.loads(host.check_output("rbd --id nova info --format json vms/%s_disk", identity)))


def test_the_first_guest_is_a_clone(on_cloud: Callable[..., Any], compute_of: Callable[[str], Any]) -> None:
    server = on_cloud(DESCRIBE, "my_vm")
    host = compute_of(server["host"])
    assert server["unshelved"] or info(host, server["id"])["parent"]["pool"] == "images"
    domain = host.check_output("virsh dumpxml %s", server["id"])
    assert f"<source protocol='rbd' name='vms/{server['id']}_disk'" in domain
    assert "cache='writeback'" in domain and "discard='unmap'" in domain
    assert not host.file(f"/var/lib/nova/instances/{server['id']}/disk").exists


def test_a_disk_takes_no_room_that_its_image_has(guest: dict[str, Any], compute_of: Callable[[str], Any]) -> None:
    host = compute_of(guest["host"])
    used = json.loads(host.check_output("rbd --id nova du --format json vms/%s_disk", guest["id"]))["images"][0]
    assert used["provisioned_size"] == GIB
    assert used["used_size"] < 256 << 20


@pytest.mark.on("compute")
@pytest.mark.parametrize(
    "attempt",
    [
        "rbd --id nova ls backups",
        "rbd --id nova ls volumes",
        "rbd --id nova create --size 1M images/kn-rbd",
        "rados --id nova --pool images put kn-rbd /etc/hostname",
        "ceph --id nova auth ls",
        "ceph --id nova osd pool set vms size 1",
        "rbd --id nova --pool images snap unprotect IMAGE@snap",
        "rbd --id nova rm images/IMAGE",
    ],
)
def test_the_key_of_nova_opens_no_more_than_it_needs(host: Any, attempt: str) -> None:
    if "IMAGE" in attempt:
        images = host.check_output("rbd --id nova ls images").splitlines()
        assert images
        attempt = attempt.replace("IMAGE", images[0])
    done = host.run(attempt)
    assert done.rc != 0 and ("not permitted" in done.stderr or "EACCES" in done.stderr), done.stderr


@pytest.mark.on("compute")
def test_the_key_of_nova_reads_images_and_keeps_disks(host: Any) -> None:
    host.check_output("rbd --id nova ls images")
    host.check_output("rbd --id nova ls vms")


@pytest.mark.parametrize(
    "attempt", ["rbd --id glance ls vms", "rbd --id glance ls volumes", "rbd --id glance ls backups"]
)
def test_the_key_of_glance_opens_images_only(host: Any, attempt: str) -> None:
    assert host.run("rbd --id glance ls images").rc == 0
    assert "not permitted" in host.run(attempt).stderr


@pytest.mark.on("compute")
def test_who_reads_the_key_of_nova(host: Any) -> None:
    file = host.file(KEYRING)
    assert (file.user, file.group, file.mode) == ("root", "nova", 0o640)


@pytest.mark.on("compute")
def test_secrets_survive_a_restart_of_libvirtd(host: Any, run_python: Callable[..., Any]) -> None:
    before = run_python(SECRET, "client.nova", KEYRING)
    assert [one[0] for one in before] == [True] and before[0][2]
    host.check_output("systemctl restart libvirtd")
    assert run_python(SECRET, "client.nova", KEYRING) == before
    assert len(host.check_output("virsh secret-list").splitlines()) >= 4  # Two, below two lines of a heading.


def test_the_file_survives_a_hard_reboot(
    guest: dict[str, Any], on_cloud: Callable[..., Any], in_guest: Callable[[str, str], str]
) -> None:
    on_cloud(
        'nova.reboot_server(ARGUMENTS[0], "HARD"); ready(settled(ARGUMENTS[0]))',
        guest["id"],
    )
    assert in_guest(guest["address"], f"sudo cat {FILE}").strip() == "kept"


def test_a_snapshot_is_an_image_of_which_guests_are_clones(
    guest: dict[str, Any],
    on_cloud: Callable[..., Any],
    in_guest: Callable[[str, str], str],
    compute_of: Callable[[str], Any],
) -> None:
    on_cloud(REMOVE, [SNAPSHOT])
    kind = on_cloud(
        """
server, name = ARGUMENTS
image = nova.create_server_image(server, name, wait=True, timeout=300)
settled(server)
print(json.dumps(cloud.image.find_image(name).disk_format))
""",
        guest["id"],
        SNAPSHOT,
    )
    assert kind == "raw"
    made = on_cloud(CREATE, SNAPSHOT, SNAPSHOT)
    assert info(compute_of(made["host"]), made["id"])["parent"]["pool"] == "images"
    assert in_guest(made["address"], f"sudo cat {FILE}").strip() == "kept"
    # The image goes while a guest is its clone.
    on_cloud(REMOVE.replace("server := nova.find_server(name)", "server := None"), [SNAPSHOT])
    assert in_guest(made["address"], f"sudo cat {FILE}").strip() == "kept"
    on_cloud(REMOVE, [SNAPSHOT])


def test_an_imported_image_becomes_raw(on_cloud: Callable[..., Any]) -> None:
    on_cloud(REMOVE, [NAME + "-import"])
    try:
        found = on_cloud(IMPORT, NAME + "-import")
    finally:
        on_cloud(REMOVE, [NAME + "-import"])
    assert (found["format"], found["store"]) == ("raw", "rbd") and found["place"].startswith("rbd://")


def test_nobody_says_where_the_data_of_an_image_is(on_cloud: Callable[..., Any]) -> None:
    """A user sees the place of an image, and can neither set one nor see all of them. No key is in it."""
    found = on_cloud(TENANT, NAME)
    place = found.pop("place")
    assert found == {"add": 403, "replace": 403, "post": 403, "get": 403, "status": "queued"}
    assert place.startswith("rbd://") and "@" not in place and place.endswith("/snap")


@dataclass
class Move:
    """A guest that moves between computes, and what tells whether its disk stays the same."""

    guest: dict[str, Any]
    on_cloud: Callable[..., Any]
    in_guest: Callable[[str, str], str]
    compute_of: Callable[[str], Any]

    def disk(self, host: str) -> str:
        """Return the identifier of its disk in Ceph, as a compute sees it."""
        return str(info(self.compute_of(host), self.guest["id"])["id"])

    def files(self, computes: list[str]) -> list[str]:
        """Return the computes that have a file for its disk."""
        path = f"/var/lib/nova/instances/{self.guest['id']}/disk"
        return [name for name in computes if self.compute_of(name).file(path).exists]

    def kept(self) -> bool:
        """Return whether its file is there."""
        return self.in_guest(self.guest["address"], f"sudo cat {FILE}").strip() == "kept"


@pytest.fixture(scope="module")
def move(
    guest: dict[str, Any],
    on_cloud: Callable[..., Any],
    in_guest: Callable[[str, str], str],
    compute_of: Callable[[str], Any],
) -> Move:
    return Move(guest, on_cloud, in_guest, compute_of)


@pytest.fixture(scope="module")
def computes(hosts_sites: tuple[Any, ...]) -> list[str]:
    found = [site.name for site in hosts_sites if "compute" in site.groups]
    if len(found) < 2:
        pytest.skip("needs two computes")
    return found


def test_a_live_migration_copies_no_disk(move: Move, computes: list[str]) -> None:
    before = move.disk(move.guest["host"])
    server = move.on_cloud(
        """
server, = ARGUMENTS
before = nova.get_server(server).compute_host
nova.live_migrate_server(server, host=None, block_migration="auto")
wait(lambda: nova.get_server(server).compute_host != before, 300, "the migration")
print(json.dumps({"host": settled(server).compute_host}))
""",
        move.guest["id"],
    )
    assert server["host"] != move.guest["host"]
    # The same object in Ceph, and no file on either compute.
    assert move.disk(server["host"]) == before
    assert not move.files(computes)
    assert move.kept()


@pytest.mark.parametrize(("action", "gib"), [("migrate", 1), ("resize", 2)])
def test_a_cold_move_copies_no_disk(move: Move, computes: list[str], action: str, gib: int) -> None:
    now = move.on_cloud(DESCRIBE, NAME)["host"]
    before = move.disk(now)
    move.on_cloud(REMOVE_FLAVOR, NAME)
    try:
        there = move.on_cloud(COLD_MOVE, NAME, action)
    finally:
        move.on_cloud(REMOVE_FLAVOR, NAME)
    assert there != now
    # A copy would be another object in Ceph, or a file.
    assert move.disk(there) == before
    assert not move.files(computes)
    assert info(move.compute_of(there), move.guest["id"])["size"] == gib * GIB
    assert move.kept()


def test_an_evacuation_keeps_the_file(move: Move, computes: list[str]) -> None:
    """The guest ends as with its host, and Nova hears nothing of its compute any more."""
    now = move.on_cloud(DESCRIBE, NAME)
    dead = move.compute_of(now["host"])
    before = move.disk(now["host"])
    dead.check_output("systemctl stop nova-compute")
    try:
        dead.check_output("virsh destroy %s", move.guest["id"])
        after = move.on_cloud(
            """
name, compute = ARGUMENTS
service = next(one for one in nova.services(binary="nova-compute") if one.host == compute)
nova.update_service_forced_down(service, compute, "nova-compute", True)
server = nova.find_server(name)
nova.evacuate_server(server)
wait(lambda: nova.get_server(server).compute_host != compute, 300, "the evacuation")
server = settled(server)
ready(server)
print(json.dumps({"host": server.compute_host}))
""",
            NAME,
            now["host"],
        )
    finally:
        dead.check_output("systemctl start nova-compute")
        move.on_cloud(
            """
found = lambda: next(one for one in nova.services(binary="nova-compute") if one.host == ARGUMENTS[0])
def counts_again():
    # Nova refuses it until the compute has removed what was evacuated.
    try:
        nova.update_service_forced_down(found(), ARGUMENTS[0], "nova-compute", False)
    except openstack.exceptions.BadRequestException:
        return False
    return True
wait(counts_again, 180, "the compute has cleaned up")
wait(lambda: found().state == "up", 180, "the return of the compute")
""",
            now["host"],
        )
    assert after["host"] != now["host"]
    assert move.kept()
    assert move.disk(after["host"]) == before
