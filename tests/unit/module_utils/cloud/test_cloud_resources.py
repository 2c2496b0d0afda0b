# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Resources of a small cloud in memory: what is created, predicted, corrected and left to the operator."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.kilonova.cloud import cloud_resources
from ansible.module_utils.kilonova.cloud import servers as servers_module
from ansible.module_utils.kilonova.cloud.api import CloudError
from ansible.module_utils.kilonova.cloud.converge import Convergence
from ansible.module_utils.kilonova.cloud.servers import ServerFailed

KEY = "ssh-ed25519 AAAAC3Nza me"
KINDS = {
    "/flavors": "flavor",
    "/flavors/detail": "flavor",
    "/images": "image",
    "/networks": "network",
    "/subnets": "subnet",
    "/security-groups": "security_group",
    "/security-group-rules": "security_group_rule",
    "/servers": "server",
    "/servers/detail": "server",
    "/os-hypervisors/detail": "hypervisor",
    "/types": "volume_type",
}


class Cloud:
    """The services, from dictionaries."""

    def __init__(self) -> None:
        self.things: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in set(KINDS.values())}
        self.things["security_group"]["g"] = {"id": "g", "name": "default", "security_group_rules": []}
        self.keys: dict[str, str] = {}
        self.writes: list[str] = []
        self.numbers = itertools.count(1)
        self.quotas: dict[str, Any] = {"id": "default", "volumes": 10, "gigabytes": 1000}
        self.volumes = True
        self.next_server: dict[str, Any] = {"status": "ACTIVE", "OS-SRV-USG:launched_at": "now"}

    def offers(self, service: str) -> bool:
        return self.volumes

    def listing(self, service: str, path: str, key: str, **params: Any) -> list[dict[str, Any]]:
        if path == "/os-keypairs":
            return [{"keypair": {"name": name, "public_key": text}} for name, text in self.keys.items()]
        found = list(self.things[KINDS[path]].values())
        if "image" in params:
            return [server for server in found if server.get("imageRef") == params["image"]]
        found = [one for one in found if "name" not in params or one["name"].startswith(params["name"])]
        return [one for one in found if "network_id" not in params or one["network_id"] == params["network_id"]]

    def get(self, service: str, path: str, **params: Any) -> dict[str, Any]:
        if path.startswith("/os-quota-class-sets"):
            return {"quota_class_set": self.quotas}
        kind, _, identity = path.strip("/").partition("/")
        if identity not in self.things[kind[:-1]]:
            raise CloudError("Nova API", f"{path} is gone", 404)
        thing = self.things[kind[:-1]][identity]
        return thing if kind == "images" else {kind[:-1]: thing}

    def post(self, service: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.writes.append(f"POST {path}")
        if path == "/os-keypairs":
            self.keys[body["keypair"]["name"]] = body["keypair"]["public_key"]
            return {}
        if path.endswith("/os-extra_specs"):
            self.things["flavor"][path.split("/")[2]]["extra_specs"].update(body["extra_specs"])
            return {}
        if path.endswith("/extra_specs"):
            self.things["volume_type"][path.split("/")[2]]["extra_specs"].update(body["extra_specs"])
            return {}
        if path.endswith("/action"):
            return {"output": "Booting from hard disk"}
        kind = KINDS[path]
        fields = body if kind == "image" else body[kind]
        thing = {"id": fields.get("id") or f"{kind}-{next(self.numbers)}"} | fields
        extra: dict[str, dict[str, Any]] = {
            "flavor": {"extra_specs": {}, "os-flavor-access:is_public": fields.get("os-flavor-access:is_public")},
            "image": {"status": "queued"},
            "security_group": {"security_group_rules": []},
            "server": dict(self.next_server),
            "volume_type": {"is_public": fields.get("os-volume-type-access:is_public")},
        }
        thing |= extra.get(kind, {})
        self.things[kind][thing["id"]] = thing
        if kind == "security_group_rule":
            self.things["security_group"][fields["security_group_id"]]["security_group_rules"].append(thing)
        return thing if kind == "image" else {kind: thing}

    def put(self, service: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.writes.append(f"PUT {path}")
        if path.startswith("/os-quota-class-sets"):
            self.quotas |= body["quota_class_set"]
            return {}
        kind, _, identity = path.strip("/").partition("/")
        if kind == "types":
            self.things["volume_type"][identity].update(body["volume_type"])
            return {}
        self.things[kind[:-1]][identity].update(body[kind[:-1]])
        return {}

    def delete(self, service: str, path: str) -> None:
        self.writes.append(f"DELETE {path}")
        kind, identity, *rest = path.strip("/").split("/")
        if kind == "os-keypairs":
            del self.keys[identity]
        elif rest and kind == "types":
            del self.things["volume_type"][identity]["extra_specs"][rest[-1]]
        elif rest:
            del self.things["flavor"][identity]["extra_specs"][rest[-1]]
        else:
            del self.things[kind[:-1]][identity]

    def request(self, service: str, method: str, path: str, **arguments: Any) -> Any:
        self.writes.append(f"{method} {path}")
        image = self.things["image"][path.split("/")[2]]
        if method == "PUT":
            data = arguments["data"].read()
            image |= {"status": "active", "os_hash_algo": "sha512", "os_hash_value": hashlib.sha512(data).hexdigest()}
        else:
            for step in arguments["json"]:
                image[step["path"].strip("/")] = step["value"]
        return SimpleNamespace()


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    monkeypatch.setattr(servers_module, "POLL_SECONDS", 0.0)
    return Cloud()


@pytest.fixture
def params(tmp_path: Path) -> dict[str, Any]:
    """The arguments for a first cloud, with all defaults."""
    path = tmp_path / "guest.qcow2"
    path.write_bytes(b"disk")
    arguments = {
        "flavors": [{"name": "m1.tiny", "id": "1", "vcpus": 1, "ram": 512, "disk": 1, "extra_specs": {"a": 1}}],
        "images": [{"name": "guest", "path": str(path), "properties": {"hw_rng_model": "virtio"}}],
        "networks": [
            {
                "name": "nova",
                "type": "flat",
                "physical_network": "physnet1",
                "shared": True,
                "subnets": [{"name": "nova-v4", "cidr": "192.168.1.0/24", "exclude": ["192.168.1.9"]}],
            }
        ],
        "security_group_rules": [{"protocol": "icmp"}, {"protocol": "tcp", "port_min": 22}],
        "keypairs": [{"name": "kilonova", "public_key": KEY}],
        "servers": [
            {"name": "my_vm", "image": "guest", "flavor": "m1.tiny", "networks": ["nova"], "keypair": "kilonova"}
        ],
    }
    return validated(arguments)


def validated(arguments: dict[str, Any]) -> dict[str, Any]:
    result = ArgumentSpecValidator(cloud_resources.ARGUMENT_SPEC).validate(arguments)
    assert not result.error_messages
    return dict(result.validated_parameters)


def converge(cloud: Cloud, params: dict[str, Any], check_mode: bool = False) -> Convergence:
    work = Convergence(api=cloud, project_id="p", check_mode=check_mode, server_timeout=1)  # type: ignore[arg-type]
    cloud_resources.converge(work, cloud_resources.normalised(params), params["volume_quotas"])
    return work


def unresolved(work: Convergence) -> str:
    return "\n".join(map(str, work.unresolved))


def test_kinds_side_by_side_are_recorded_in_their_order(cloud: Cloud) -> None:
    def kind(name: str, seconds: float, error: str = "") -> Callable[[Convergence], None]:
        def work(part: Convergence) -> None:
            time.sleep(seconds)
            part.record(name, "a", "created", None, {})
            part.keep(name, "a", f"id of {name}")
            if error:
                raise CloudError("Nova", error)

        return work

    work = Convergence(api=cloud, project_id="p", check_mode=False, server_timeout=1)  # type: ignore[arg-type]
    with pytest.raises(CloudError, match="^slow$"):
        work.side_by_side(kind("flavor", 0.2, "slow"), kind("image", 0.0, "quick"), kind("network", 0.1))
    assert work.actions == ["flavor a: created", "image a: created", "network a: created"]
    assert work.ids["network"] == {"a": "id of network"}


@pytest.mark.parametrize("status", [None, 401, 403, 503])
def test_check_mode_goes_on_without_a_service(
    cloud: Cloud, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch, status: int | None
) -> None:
    listing = cloud.listing

    def deaf(service: str, path: str, key: str, **arguments: Any) -> list[dict[str, Any]]:
        if service == "image":
            raise CloudError("Glance", "GET /images got no token validated", status)
        return listing(service, path, key, **arguments)

    monkeypatch.setattr(cloud, "listing", deaf)
    work = converge(cloud, params, check_mode=True)
    assert [(error.layer, str(error)) for error in work.unseen] == [("Glance", "GET /images got no token validated")]
    assert "flavor m1.tiny: created" in work.actions
    assert "server my_vm: created" in work.actions
    with pytest.raises(CloudError, match="no token validated"):
        converge(cloud, params)


def test_check_mode_does_not_hide_a_bad_request(
    cloud: Cloud, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: Any, **_named: Any) -> list[dict[str, Any]]:
        raise CloudError("Glance", "GET /images got 400", 400)

    monkeypatch.setattr(cloud, "listing", refuse)
    with pytest.raises(CloudError, match="got 400"):
        converge(cloud, params, check_mode=True)


def test_everything_is_created_once(cloud: Cloud, params: dict[str, Any]) -> None:
    predicted = converge(cloud, params, check_mode=True)
    assert cloud.writes == []
    done = converge(cloud, params)
    assert done.actions == predicted.actions
    assert set(done.after) == set(predicted.after)
    server = next(iter(cloud.things["server"].values()))
    assert server["imageRef"] == done.ids["image"]["guest"]
    assert server["flavorRef"] == "1"
    assert server["networks"] == [{"uuid": done.ids["network"]["nova"]}]
    assert server["key_name"] == "kilonova"
    cloud.writes.clear()
    again = converge(cloud, params)
    assert again.actions == []
    assert cloud.writes == []


def test_prediction_before_the_cloud_exists(params: dict[str, Any]) -> None:
    assert cloud_resources.first_actions(params) == [
        "flavor m1.tiny: created",
        "image guest: created",
        "network nova: created",
        "security group rule icmp: created",
        "security group rule tcp: created",
        "keypair kilonova: created",
        "server my_vm: created",
    ]


def test_drift_is_corrected(cloud: Cloud, params: dict[str, Any]) -> None:
    done = converge(cloud, params)
    cloud.things["flavor"]["1"]["extra_specs"] = {"b": "2"}
    cloud.things["image"][done.ids["image"]["guest"]]["visibility"] = "private"
    cloud.things["network"][done.ids["network"]["nova"]]["shared"] = False
    cloud.things["subnet"][done.ids["subnet"]["nova-v4"]]["enable_dhcp"] = False
    cloud.keys["kilonova"] = "ssh-ed25519 AAAAother"
    repaired = converge(cloud, params)
    assert [action.partition(":")[0] for action in repaired.actions] == [
        "flavor m1.tiny",
        "image guest",
        "network nova",
        "subnet nova-v4",
        "keypair kilonova",
    ]
    assert cloud.things["flavor"]["1"]["extra_specs"] == {"a": "1"}
    assert cloud.keys["kilonova"] == KEY
    assert converge(cloud, params).actions == []


def test_changed_file_replaces_the_image(cloud: Cloud, params: dict[str, Any]) -> None:
    params["servers"] = []
    first = converge(cloud, params).ids["image"]["guest"]
    Path(params["images"][0]["path"]).write_bytes(b"newer disk")
    second = converge(cloud, params).ids["image"]["guest"]
    assert list(cloud.things["image"]) == [second] != [first]


def test_replaced_image_of_servers_is_hidden(cloud: Cloud, params: dict[str, Any]) -> None:
    first = converge(cloud, params).ids["image"]["guest"]
    Path(params["images"][0]["path"]).write_bytes(b"newer disk")
    work = converge(cloud, params)
    assert cloud.things["image"][first]["os_hidden"] is True
    assert "is hidden, not deleted" in work.warnings[0]
    assert len(cloud.things["server"]) == 1


def test_unfinished_upload_is_removed(cloud: Cloud, params: dict[str, Any]) -> None:
    cloud.things["image"]["broken"] = {"id": "broken", "name": "guest", "status": "saving"}
    work = converge(cloud, params)
    assert work.actions[1] == "image broken: removed, its upload was not finished"
    assert list(cloud.things["image"]) == [work.ids["image"]["guest"]]


def test_file_with_a_wrong_sha256_is_not_uploaded(cloud: Cloud, params: dict[str, Any]) -> None:
    params["images"][0]["sha256"] = "0" * 64
    for check_mode in (True, False):
        assert "does not have the sha256 0000" in unresolved(converge(cloud, params, check_mode))
    assert cloud.things["image"] == {}


def test_missing_file(cloud: Cloud, params: dict[str, Any]) -> None:
    converge(cloud, params)
    Path(params["images"][0]["path"]).unlink()
    assert "check mode cannot compare" in converge(cloud, params, check_mode=True).warnings[0]
    assert "does not exist on this host" in unresolved(converge(cloud, params))


def test_server_in_error_that_never_ran_is_recreated(cloud: Cloud, params: dict[str, Any]) -> None:
    fault = {"message": "No valid host was found."}
    cloud.next_server = {"status": "ERROR", "OS-SRV-USG:launched_at": None, "fault": fault}
    with pytest.raises(ServerFailed, match="went to ERROR") as failure:
        converge(cloud, params)
    assert "Nova's reason: No valid host was found." in str(failure.value)
    assert "Booting from hard disk" in str(failure.value)
    cloud.next_server = {"status": "ACTIVE", "OS-SRV-USG:launched_at": "now"}
    work = converge(cloud, params)
    assert work.actions == ["server my_vm: deleted, it was in ERROR and never ran", "server my_vm: created"]
    assert [server["status"] for server in cloud.things["server"].values()] == ["ACTIVE"]


def test_server_in_error_that_ran_is_left_alone(cloud: Cloud, params: dict[str, Any]) -> None:
    converge(cloud, params)
    next(iter(cloud.things["server"].values()))["status"] = "ERROR"
    cloud.writes.clear()
    predicted = converge(cloud, params, check_mode=True)
    assert cloud.writes == []
    work = converge(cloud, params)
    assert unresolved(work) == unresolved(predicted)
    assert "may hold data, so it is not recreated" in unresolved(work)
    assert "Booting from hard disk" in work.unresolved[0].details
    assert [write for write in cloud.writes if not write.endswith("/action")] == []


def test_server_that_stays_in_build(cloud: Cloud, params: dict[str, Any]) -> None:
    cloud.next_server = {"status": "BUILD", "OS-EXT-STS:task_state": "spawning"}
    with pytest.raises(ServerFailed, match=r"still being built after 1 s \(its task: spawning\)"):
        converge(cloud, params)


def test_server_with_a_longer_name_does_not_count(cloud: Cloud, params: dict[str, Any]) -> None:
    cloud.things["server"]["x"] = {"id": "x", "name": "my_vm2", "status": "ACTIVE"}
    assert "server my_vm: created" in converge(cloud, params).actions


@pytest.mark.parametrize(
    ("host", "candidates", "created"), [("cmp1", [], False), ("cmp1", [{"allocations": {}}], True), ("gone", [], True)]
)
def test_server_is_left_out_where_there_is_no_room(
    cloud: Cloud,
    params: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    candidates: list[dict[str, Any]],
    created: bool,
) -> None:
    asked = []
    params["flavors"][0] |= {"swap": 1025}
    params["servers"][0] |= {"host": host, "only_if_room": True}
    cloud.things["hypervisor"]["h"] = {"id": "h", "name": "cmp1", "service": {"host": "cmp1"}}
    get = cloud.get

    def answer(service: str, path: str, **arguments: Any) -> dict[str, Any]:
        if path != "/allocation_candidates":
            return get(service, path, **arguments)
        asked.append(arguments)
        return {"allocation_requests": candidates}

    monkeypatch.setattr(cloud, "get", answer)
    work = converge(cloud, params)
    assert asked == ([] if host == "gone" else [{"resources": "VCPU:1,MEMORY_MB:512,DISK_GB:3", "in_tree": "h"}])
    assert work.without_room == ([] if created else ["my_vm"])
    assert [one["name"] for one in cloud.things["server"].values()] == (["my_vm"] if created else [])


def test_stopped_server_stays_stopped(cloud: Cloud, params: dict[str, Any]) -> None:
    converge(cloud, params)
    next(iter(cloud.things["server"].values()))["status"] = "SHUTOFF"
    assert converge(cloud, params).actions == []


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("flavors", {"ram": 128}, "ram is 512, wanted 128"),
        ("flavors", {"id": "7"}, "has the id '1', wanted is '7'"),
        ("networks", {"type": "vlan"}, "provider:network_type is flat, wanted vlan"),
        ("keypairs", {"public_key": "nonsense"}, "not an OpenSSH public key"),
        ("servers", {"name": "other", "flavor": "m9"}, "There is no flavor 'm9'"),
    ],
)
def test_what_the_operator_has_to_resolve(
    cloud: Cloud, params: dict[str, Any], kind: str, changes: dict[str, Any], message: str, check_mode: bool
) -> None:
    converge(cloud, params)
    cloud.writes.clear()
    params[kind][0] |= changes
    work = converge(cloud, params, check_mode)
    assert message in unresolved(work)
    assert cloud.writes == []
    assert work.must_stop is not check_mode


@pytest.mark.parametrize("check_mode", [True, False])
def test_everything_to_resolve_is_collected(cloud: Cloud, params: dict[str, Any], check_mode: bool) -> None:
    converge(cloud, params)
    params["flavors"][0]["ram"] = 128
    params["flavors"].append(params["flavors"][0] | {"name": "m1.small", "id": "2"})
    params["networks"][0]["type"] = "vlan"
    params["networks"][0]["subnets"][0]["cidr"] = "192.168.2.0/24"
    params["networks"][0]["subnets"].append(params["networks"][0]["subnets"][0] | {"name": "b", "cidr": "10.0.0.0/24"})
    params["servers"].append(params["servers"][0] | {"name": "second"})
    next(iter(cloud.things["server"].values()))["status"] = "ERROR"
    work = converge(cloud, params, check_mode)
    assert [str(error).partition(" (")[0] for error in work.unresolved[:2]] == [
        "The flavor 'm1.tiny' differs",
        "The network 'nova' differs",
    ]
    assert "has the range 192.168.1.0/24, wanted is 192.168.2.0/24" in str(work.unresolved[2])
    assert "The server 'my_vm' is in ERROR" in str(work.unresolved[3])
    assert len(work.unresolved) == 4
    # The rest is predicted, or done. No server is begun for a call that will fail.
    booted = ["server second: created"] if check_mode else []
    assert work.actions == ["flavor m1.small: created", "subnet b: created", *booted]


def test_a_server_adds_nothing_to_its_images_problem(cloud: Cloud, params: dict[str, Any]) -> None:
    params["images"][0]["sha256"] = "0" * 64
    work = converge(cloud, params, check_mode=True)
    assert len(work.unresolved) == 1
    assert "server my_vm: created" in work.actions


def test_keypair_needs_a_key() -> None:
    result = ArgumentSpecValidator(cloud_resources.ARGUMENT_SPEC).validate({"keypairs": [{"name": "a"}]})
    assert "public_key" in result.error_messages[0]


@pytest.fixture
def volumes() -> dict[str, Any]:
    """The arguments for a type of volumes and a quota."""
    return validated(
        {
            "volume_types": [{"name": "ceph", "description": "Fast", "extra_specs": {"volume_backend_name": "ceph"}}],
            "volume_quotas": {"volumes": 20},
        }
    )


def test_a_type_of_volumes_and_quotas(cloud: Cloud, volumes: dict[str, Any]) -> None:
    assert converge(cloud, volumes, check_mode=True).actions == [
        "volume type ceph: created",
        "volume quotas default: volumes changed",
    ]
    assert cloud.writes == []
    work = converge(cloud, volumes)
    (made,) = cloud.things["volume_type"].values()
    assert (made["name"], made["description"], made["is_public"]) == ("ceph", "Fast", True)
    assert made["extra_specs"] == {"volume_backend_name": "ceph"}
    assert work.ids["volume type"] == {"ceph": made["id"]}
    assert cloud.quotas == {"id": "default", "volumes": 20, "gigabytes": 1000}
    assert converge(cloud, volumes).actions == []


def test_a_type_of_volumes_is_corrected(cloud: Cloud, volumes: dict[str, Any]) -> None:
    converge(cloud, volumes)
    (made,) = cloud.things["volume_type"].values()
    made |= {"is_public": False, "description": "", "extra_specs": {"a": "1"}}
    assert converge(cloud, volumes).actions == ["volume type ceph: description, public, extra specs changed"]
    assert (made["is_public"], made["description"]) == (True, "Fast")
    assert made["extra_specs"] == {"volume_backend_name": "ceph"}
    assert converge(cloud, volumes).actions == []


def test_all_is_predicted_before_cinder_is_there(cloud: Cloud, volumes: dict[str, Any]) -> None:
    converge(cloud, volumes)
    cloud.volumes = False
    assert converge(cloud, volumes, check_mode=True).actions == [
        "volume type ceph: created",
        "volume quotas default: volumes changed",
    ]


def test_a_quota_that_cinder_does_not_have(cloud: Cloud, volumes: dict[str, Any]) -> None:
    volumes["volume_quotas"]["volume"] = 3
    work = converge(cloud, volumes)
    assert unresolved(work) == "Cinder has no quota of volume. It has: gigabytes, volumes."
    assert cloud.quotas["volumes"] == 10


def test_prediction_of_volumes_before_the_cloud_exists(volumes: dict[str, Any]) -> None:
    assert cloud_resources.first_actions(volumes) == [
        "volume type ceph: created",
        "volume quotas default: volumes changed",
    ]
